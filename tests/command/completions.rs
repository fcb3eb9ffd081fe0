//! The Tab key in real shells. zsh and fish come by scripts/setup-tests shells; where one is not installed, its test says so
//! and does nothing.

use std::process::Command;

use crate::fake_daemon::{bare, on, program};
use crate::terminal::Terminal;
use crate::{FakeDaemon, status};

/// A home with two profiles in its configuration, and the command in its PATH beside a program of a rare name.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("temp dir");
        let config = home.path().join(".config/wandb-cred");
        std::fs::create_dir_all(&config).expect("made");
        let text = "[profile.workshop.provider.file]\npath = \"/x\"\n[profile.laboratory]\n";
        std::fs::write(config.join("config.toml"), text).expect("written");
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).expect("made");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wandb-cred"), bin.join("wandb-cred")).expect("linked");
        program(&bin.join("zzz-trainer"), "exit 0");
        std::fs::write(home.path().join("zzz-data.csv"), "").expect("written");
        Self(home)
    }

    fn environment(&self) -> Command {
        let mut command = bare(self.0.path(), &[]);
        let path = std::env::var("PATH").expect("PATH");
        command.env("PATH", format!("{}/bin:{path}", self.0.path().display())).env("PS1", "$ ");
        command
    }
}

/// What is typed before Tab, and what stands there after it.
const TABS: [(&str, &str); 7] = [
    ("wandb-cred sta", "status"),
    ("wandb-cred status --wa", "--watch"),
    ("wandb-cred service inst", "install"),
    ("wandb-cred token --profile works", "workshop"),
    ("wandb-cred login -p lab", "laboratory"),
    ("wandb-cred exec -- zzz-tr", "zzz-trainer"),
    ("wandb-cred exec -- cat zzz-d", "zzz-data.csv"),
];

fn is_there(shell: &str) -> bool {
    let there = Command::new(shell).arg("--version").output().is_ok();
    if !there {
        eprintln!("not tested: {shell} is not installed (scripts/setup-tests shells)");
    }
    there
}

fn each_tab(start: &str, prepare: &str) {
    let home = Home::new();
    let folder = home.0.path().display();
    let mut terminal = Terminal::start(&home.environment(), 200, &format!("cd {folder}; exec {start}"));
    // Both halves, so that the echo of the line is not taken for its answer.
    terminal.keys(&format!("{prepare}; PS1='rea''dy> '\r"));
    let mut shown = terminal.shows("ready> ");
    for (typed, expected) in TABS {
        terminal.keys(typed);
        shown = terminal.shows_after(shown, typed);
        terminal.keys("\tX");
        // The X that was typed shows that completion is over.
        let at = terminal.shows_after(shown, "X");
        let text = terminal.text();
        let (_, last) = typed.rsplit_once(' ').expect("several words");
        let rest = expected.strip_prefix(last).expect("it begins so");
        let said = plain(&text[shown..at]);
        assert!(said.contains(rest), "{typed}: {said:?}");
        // The line is given up: by ^U, for bash now and then takes a ^C without showing a new prompt.
        terminal.keys("\x15\r");
        shown = terminal.shows_after(at, "ready> ");
    }
}

/// Without the escape sequences by which a shell moves and colours.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => drop(rest.by_ref().find(char::is_ascii_alphabetic)),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[test]
fn bash_completes() {
    if is_there("bash") {
        each_tab("bash --norc --noprofile -i", "source <(wandb-cred completions bash)");
    }
}

#[test]
fn zsh_completes() {
    if is_there("zsh") {
        let prepare = "autoload -U compinit; compinit -u -D; source <(wandb-cred completions zsh)";
        each_tab("zsh -f -i", prepare);
    }
}

/// Where packages put the script, it is read at the first Tab, and that Tab completes already.
#[test]
fn zsh_completes_from_a_folder_of_fpath() {
    if is_there("zsh") {
        let prepare = "mkdir -p f; wandb-cred completions zsh >f/_wandb-cred; fpath=($PWD/f $fpath); autoload -U compinit; compinit -u -D";
        each_tab("zsh -f -i", prepare);
    }
}

#[test]
fn fish_completes() {
    if !is_there("fish") {
        return;
    }
    let home = Home::new();
    for (typed, expected) in TABS {
        let script = format!("wandb-cred completions fish | source; complete -C '{typed}'");
        let output = home.environment();
        let output = Command::new("fish")
            .args(["--no-config", "-c", &script])
            .envs(output.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(home.0.path())
            .output()
            .expect("fish runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let completes = |line: &str| line.split('\t').next() == Some(expected);
        assert!(said.lines().any(completes), "{typed}: {said:?} {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn without_a_file_the_daemon_knows_the_profiles() {
    let status = status::answer(&[status::profile("remote", true, "null")]);
    let daemon = FakeDaemon::start(vec![on("GET /v1/status", 200, status)]);
    let output = daemon
        .command(&["--", "wandb-cred", "token", "--profile", "rem"])
        .env("WANDB_CRED_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "3")
        .output()
        .expect("runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "remote");
}
