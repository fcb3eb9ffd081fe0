//! `login`: which browser it opens, what it shows, and what is typed while it waits.

use std::path::Path;
use std::process::Command;

use crate::fake_daemon::{Answer, FakeDaemon, on, on_answer, program, ran};
use crate::status;
use crate::terminal::Terminal;
use crate::{TOKEN, fake_daemon};

const PAGE: &str = "https://idp.example/authorize?it's=1&state=x";

fn login(state: &str, more: &str) -> String {
    format!(
        r#"{{"id":"{0}","profile":"work","method":"browser","state":"{state}","url":"{PAGE}","expires_at":"2100-01-01T00:00:00Z"{more}}}"#,
        "0".repeat(32)
    )
}

fn daemon(end: Answer, more: &str) -> FakeDaemon {
    FakeDaemon::start(vec![
        on("POST /v1/login/", 200, login("waiting", "")),
        on("POST /v1/login", 200, login("waiting", more)),
        on_answer("GET /v1/login/", end),
        on("GET /v1/token", 200, TOKEN),
        on("GET /v1/status", 200, status::answer(&[status::profile("work", true, "null")])),
    ])
}

fn signs_in() -> FakeDaemon {
    daemon(Answer::Json(200, login("signed-in", r#","account":"ada@example.com""#)), "")
}

/// `login` where the only programs are these, with their scripts.
fn with_programs(daemon: &FakeDaemon, programs: &[(&str, &str)], variables: &[(&str, &str)]) -> Command {
    let folder = daemon.folder.path().join("bin");
    std::fs::create_dir(&folder).expect("made");
    for (name, script) in programs {
        program(&folder.join(name), script);
    }
    let mut command = daemon.command(&["login"]);
    command.env("PATH", &folder).envs(variables.iter().copied());
    command
}

/// Writes what it is given, a line each, beside itself.
const TELLS: &str = r#"printf '%s\n' "$@" > "$0.told""#;

fn told(daemon: &FakeDaemon, name: &str) -> Option<String> {
    let path = daemon.folder.path().join("bin").join(format!("{name}.told"));
    // It is written by a program that the command does not wait for.
    (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))
    })
}

const WSL: &[(&str, &str)] = &[("WSL_DISTRO_NAME", "Debian")];

#[test]
fn windows_browser_is_opened_by_wslview_if_it_is_there() {
    let daemon = signs_in();
    let programs = [("wslview", TELLS), ("powershell.exe", TELLS), ("xdg-open", TELLS)];
    let ran = ran(&mut with_programs(&daemon, &programs, WSL));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.starts_with("Your browser opens to sign in."), "{}", ran.err);
    assert_eq!(told(&daemon, "wslview").as_deref(), Some(&*format!("{PAGE}\n")));
}

#[test]
fn else_by_powershell_which_is_told_of_one_string() {
    let daemon = signs_in();
    // A program that fails has opened nothing.
    let programs = [("wslview", "exit 1"), ("powershell.exe", TELLS), ("rundll32.exe", TELLS)];
    let ran = ran(&mut with_programs(&daemon, &programs, WSL));
    assert!(ran.err.starts_with("Your browser opens to sign in."), "{}", ran.err);
    let start = format!("-NoProfile\n-Command\nStart-Process '{}'\n", PAGE.replace('\'', "''"));
    assert_eq!(told(&daemon, "powershell.exe"), Some(start));
}

#[test]
fn else_by_rundll32() {
    let daemon = signs_in();
    ran(&mut with_programs(&daemon, &[("rundll32.exe", TELLS)], WSL));
    assert_eq!(told(&daemon, "rundll32.exe"), Some(format!("url.dll,FileProtocolHandler\n{PAGE}\n")));
}

#[test]
fn a_desktop_without_a_browser_is_told_from_one_with() {
    let daemon = signs_in();
    let ran = ran(&mut with_programs(&daemon, &[("xdg-open", "exit 3")], &[("DISPLAY", ":0")]));
    assert_eq!(ran.code, 0);
    assert!(ran.err.starts_with("To sign in, open this address in a browser:\n"), "{}", ran.err);
    assert!(ran.err.contains(PAGE), "{}", ran.err);
}

#[test]
fn a_code_comes_first_with_its_end() {
    let daemon = daemon(Answer::Json(200, login("signed-in", "")), r#","user_code":"ABCD-EFGH""#);
    let ran = daemon.run(&["login", "--device"]);
    let first = ran.err.lines().next().unwrap_or_default().to_owned();
    assert!(first.starts_with("Your code is        ABCD-EFGH, until ") && first.ends_with(')'), "{first}");
    assert!(!ran.err.contains("paste"), "{}", ran.err);
}

fn in_a_terminal(daemon: &FakeDaemon) -> Terminal {
    let line = format!("exec {} login --no-browser", env!("CARGO_BIN_EXE_wandb-cred"));
    Terminal::start(&daemon.command(&[]), 100, &line)
}

#[test]
fn an_address_that_is_pasted_goes_to_the_daemon_and_not_to_the_screen() {
    let daemon = daemon(Answer::Hang, "");
    let mut terminal = in_a_terminal(&daemon);
    terminal.shows("paste it here, and press Enter");
    terminal.shows("Ctrl-C cancels.");
    // Longer than a line of a terminal may be where it edits lines (4096 on Linux).
    let address = format!("http://127.0.0.1:4000/callback?code={}", "planted-".repeat(800));
    terminal.keys(&format!("wrong\u{15}\u{1b}[200~{address}\u{1b}[201~\r"));
    terminal.shows("Checking the address ...");
    let sent =
        fake_daemon::until(|| daemon.requests().into_iter().find(|request| request.contains("/callback")));
    assert_eq!(sent, format!("POST /v1/login/{}/callback {{\"url\":\"{address}\"}}", "0".repeat(32)));
    assert!(!terminal.text().contains("planted"), "{}", terminal.text());
    terminal.keys("\u{3}");
    assert_eq!(terminal.ends(), 130);
}

#[test]
fn an_address_that_is_not_taken_can_be_pasted_again() {
    let bad =
        r#"{"type":"bad-request","title":"T","status":400,"detail":"its state is not that of the sign-in"}"#;
    let daemon = FakeDaemon::start(vec![
        on("POST /v1/login/", 400, bad),
        on("POST /v1/login", 200, login("waiting", "")),
        on_answer("GET /v1/login/", Answer::Hang),
        on("GET /v1/status", 200, status::answer(&[])),
    ]);
    let mut terminal = in_a_terminal(&daemon);
    terminal.shows("Ctrl-C cancels.");
    terminal.keys("http://127.0.0.1:4000/callback?code=x\r");
    terminal.shows("Not taken: its state is not that of the sign-in. Paste the address again:");
    terminal.keys("\u{3}");
    terminal.ends();
}

#[test]
fn the_terminal_is_as_it_was_after_giving_up() {
    let daemon = daemon(Answer::Hang, "");
    let program = env!("CARGO_BIN_EXE_wandb-cred");
    assert!(Path::new(program).exists());
    let line = format!(
        "before=$(stty -g); {program} login --no-browser; test \"$before\" = \"$(stty -g)\" && echo unchanged"
    );
    let mut terminal = Terminal::start(&daemon.command(&[]), 100, &format!("trap : INT; {line}"));
    terminal.shows("Ctrl-C cancels.");
    terminal.keys("\u{3}");
    terminal.shows("unchanged");
}
