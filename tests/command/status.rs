//! `status`: its forms, and its exit codes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::fake_daemon::{FakeDaemon, on};

pub(crate) fn answer(profiles: &[String]) -> String {
    format!(
        r#"{{"version":"0.1.0","pid":7,"started_at":"2020-01-01T00:00:00Z","socket":"/s","config":null,"profiles":[{}]}}"#,
        profiles.join(",")
    )
}

pub(crate) fn profile(name: &str, default: bool, outlook: &str) -> String {
    let kept = r#"{"state":"fresh","expires_at":"2100-01-01T00:00:00Z","expires_in":3600,"next_renewal":"2099-12-31T23:00:00Z","last_error":null,"failures":0}"#;
    format!(
        r#"{{"name":"{name}","default":{default},"base_url":"https://api.wandb.ai","provider":"file","audience":"acme","hot":true,"identity":{kept},"access":{kept},"issuer":"https://idp.example","subject":"ada@example.com","outlook":{outlook},"sdk_files":null,"jobs":1,"exchanges":3}}"#
    )
}

fn daemon(state: &str) -> FakeDaemon {
    let bad = profile("eval", false, "null").replace(r#""state":"fresh""#, &format!(r#""state":"{state}""#));
    FakeDaemon::start(vec![on("GET /v1/status", 200, answer(&[profile("work", true, "null"), bad]))])
}

#[test]
fn a_pipe_gets_lines_without_colour() {
    let ran = daemon("fresh").run(&["status"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(
        ran.out.starts_with("profile: work\ndefault: yes\nstate: fresh\nserver: https://api.wandb.ai\n"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("\n\nprofile: eval\ndefault: no\n"), "{}", ran.out);
    assert!(ran.out.contains("access token: expires at 2100-01-01T00:00:00Z, in 1 h\n"), "{}", ran.out);
    assert!(!ran.out.contains('\x1b'));
}

#[test]
fn the_worst_profile_decides_the_exit_code() {
    for (state, exit) in [("fresh", 0), ("stale", 0), ("starting", 0), ("failed", 75), ("needs-login", 77)] {
        let daemon = daemon(state);
        assert_eq!(daemon.run(&["status"]).code, exit, "{state}");
        assert_eq!(daemon.run(&["status", "--profile", "work"]).code, 0);
    }
    let ran = daemon("fresh").run(&["status", "--profile", "nobody"]);
    assert_eq!(ran.code, 78);
    assert!(ran.err.contains("there is no profile nobody"), "{}", ran.err);
}

#[test]
fn json_is_one_document_a_line() {
    let ran = daemon("failed").run(&["status", "--json"]);
    assert_eq!((ran.code, ran.out.lines().count()), (75, 1));
    let status: wandb_cred::api::Status = serde_json::from_str(&ran.out).expect("the daemon's own form");
    assert_eq!(status.profiles[1].state(), "failed");
}

trait StateOf {
    fn state(&self) -> &'static str;
}

impl StateOf for wandb_cred::api::Profile {
    fn state(&self) -> &'static str {
        if self.access.state == wandb_cred::api::State::Failed { "failed" } else { "other" }
    }
}

#[test]
fn jobs_are_told_of_where_they_are_asked_for() {
    let job = r#"{"profile":"work","since":"2020-01-01T00:00:00Z","by":"adopted","pid":12,"uid":1000,"command":"python3","scheduler_job":{"scheduler":"slurm","id":"42","step":"0"}}"#;
    let other = job.replace("work", "eval").replace("12", "13");
    let body = answer(&[profile("work", true, "null"), profile("eval", false, "null")]);
    let body = body.replacen('{', &format!("{{\"job_list\":[{job},{other}],"), 1);
    let daemon = FakeDaemon::start(vec![on("GET /v1/status", 200, body)]);
    let ran = daemon.run(&["status", "--jobs", "--profile", "work"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let wanted = "\n\njob: 12\nprofile: work\nsince: 2020-01-01T00:00:00Z\nby: adopted\nuid: 1000\ncommand: python3\nscheduler: slurm 42.0\n";
    assert!(ran.out.ends_with(wanted), "{}", ran.out);
    let json = daemon.run(&["status", "--jobs", "--json"]).out;
    assert!(json.contains(r#""pid":13"#), "{json}");
    assert_eq!(daemon.requests(), ["GET /v1/status?jobs=true", "GET /v1/status?jobs=true"]);
}

#[test]
fn a_terminal_gets_a_table() {
    // script(1) gives the command a terminal.
    let daemon = daemon("failed");
    for (no_color, colour) in [("", true), ("1", false)] {
        let output = std::process::Command::new("script")
            .args(["-qec", &format!("{} status", env!("CARGO_BIN_EXE_wandb-cred")), "/dev/null"])
            .env("WANDB_CRED_SOCKET", daemon.socket())
            .env("NO_COLOR", no_color)
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output()
            .expect("script(1) runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("PROFILE") && text.contains("work*"), "{text}");
        assert_eq!(text.contains("\x1b[3"), colour, "NO_COLOR={no_color}: {text:?}");
    }
}

#[test]
fn watch_in_a_pipe_prints_changes_only_and_survives_the_daemon() {
    let daemon = daemon("fresh");
    let mut child =
        daemon.command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.starts_with('{'), "{first}");
    while daemon.requests().len() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::fs::remove_file(daemon.socket()).expect("removed");
    let second = lines.next().expect("a line").expect("text");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert!(
        second.starts_with(r#"{"error":"no daemon answers at"#),
        "the same state was printed twice: {second}"
    );
}

#[test]
fn watch_ends_when_its_reader_goes_away() {
    let daemon = daemon("fresh");
    let mut child =
        daemon.command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    drop(output);
    let id = child.id();
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait().expect("reaped")));
    let status = ended.recv_timeout(std::time::Duration::from_secs(20));
    if status.is_err() {
        let pid = rustix::process::Pid::from_raw(id.try_into().expect("a pid")).expect("not 0");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    }
    assert_eq!(status.expect("it goes on without a reader").code(), Some(0));
}

#[test]
fn a_narrow_terminal_gets_narrow_lines_and_q_ends_watching() {
    let daemon = daemon("failed");
    for (columns, last) in [(80, "SUBJECT"), (40, "TOKEN LEFT")] {
        let line = format!("{} status --watch; echo 'the ''end'; stty -a", env!("CARGO_BIN_EXE_wandb-cred"));
        let mut command = daemon.command(&[]);
        command.env("NO_COLOR", "1");
        let mut terminal = crate::terminal::Terminal::start(&command, columns, &line);
        let shown = terminal.shows("q: end");
        for line in terminal.text()[..shown].split("\r\n").filter(|line| !line.contains('\x1b')) {
            assert!(line.chars().count() <= columns.into(), "{columns}: {line:?}");
        }
        assert!(terminal.text().contains(last), "{:?}", terminal.text());
        terminal.keys("q");
        terminal.shows_after(shown, "the end");
        // The terminal is as it was, with its signals on.
        let shown = terminal.shows_after(shown, "isig");
        assert!(
            terminal.text()[..shown].contains("\nisig") || terminal.text()[..shown].contains(" isig"),
            "{}",
            terminal.text()
        );
        assert_eq!(terminal.ends(), 0);
    }
}

/// Without what sets colours.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[test]
fn what_does_not_fit_on_the_screen_is_counted() {
    let many: Vec<_> = (0..40).map(|n| profile(&format!("work-{n}"), n == 0, "null")).collect();
    let daemon = FakeDaemon::start(vec![on("GET /v1/status", 200, answer(&many))]);
    for columns in [80, 40] {
        let line = format!("{} status --watch", env!("CARGO_BIN_EXE_wandb-cred"));
        let mut command = daemon.command(&[]);
        command.env("NO_COLOR", "1");
        let mut terminal = crate::terminal::Terminal::start(&command, columns, &line);
        let shown = terminal.shows("q: end");
        let text = terminal.text()[..shown].to_owned();
        let screen = text.rsplit("\x1b[H\x1b[J").next().unwrap_or_default();
        // 24 rows, of which the last stays free of a line break.
        assert_eq!(screen.lines().count(), 23, "{screen}");
        assert!(screen.lines().all(|line| line.trim_end().chars().count() <= columns.into()), "{screen}");
        assert!(screen.contains("work-0*") && screen.contains(" more lines"), "{screen}");
        terminal.keys("q");
        assert_eq!(terminal.ends(), 0);
    }
}

#[test]
fn lock_says_what_it_changed() {
    let locked = answer(&[]).replace(r#""config":null"#, r#""config":null,"locked":true"#);
    let daemon = FakeDaemon::start(vec![
        on("GET /v1/status", 200, locked),
        on("POST /v1/lock", 200, r#"{"locked":true}"#),
        on("POST /v1/unlock", 200, r#"{"locked":false}"#),
    ]);
    assert_eq!(daemon.run(&["lock"]).out, "it was locked already: no tokens are handed out\n");
    assert_eq!(daemon.run(&["unlock"]).out, "unlocked\n");
}

#[test]
fn help_on_a_terminal_has_colour_and_fits() {
    let daemon = daemon("fresh");
    for arguments in ["--help", "help token", "exec --help"] {
        let line = format!("exec {} {arguments}", env!("CARGO_BIN_EXE_wandb-cred"));
        let mut terminal = crate::terminal::Terminal::start(&daemon.command(&[]), 60, &line);
        assert_eq!(terminal.ends(), 0);
        terminal.shows("Usage:");
        assert!(terminal.text().contains("\x1b["), "{arguments} has no colour");
        for line in plain(&terminal.text()).lines() {
            // What cannot be parted is one word, or an example that is to be typed.
            let whole = line.starts_with("  wandb-cred ") || line.trim().split(' ').count() == 1;
            assert!(line.trim_end().chars().count() <= 60 || whole, "{arguments}: {line:?}");
        }
    }
}
