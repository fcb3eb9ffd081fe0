//! Ten minutes of clumsy use: every message ends with a next step, which is typed as it stands, and works.
//!
//! What a message says is typed is taken out of it by [`Said::commands`], not repeated here: advice that changes is followed
//! as it is then. What only a person can do (edit a file, put one in its place) is done by the test, between the two.

mod configuration;
mod identity;
mod mistyped;
mod signing_in;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::setup::{COMMAND, Sandbox, now};

/// A person with a home and a shell of their own, and nothing else of this machine's.
struct Person {
    home: tempfile::TempDir,
    sandbox: Sandbox,
    shell: BTreeMap<String, String>,
}

/// What came of a line that was typed.
#[derive(Debug)]
struct Said {
    line: String,
    code: i32,
    out: String,
    err: String,
}

impl Person {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("wa").tempdir().expect("temp dir");
        let run = home.path().join("run");
        fs::create_dir(&run).expect("made");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).expect("chmod");
        let programs = Path::new(COMMAND).parent().expect("a folder").display();
        let path = format!("{programs}:{}", std::env::var("PATH").expect("PATH"));
        let text = |path: &Path| path.display().to_string();
        let shell = [
            ("PATH", path),
            ("HOME", text(home.path())),
            ("XDG_RUNTIME_DIR", text(&run)),
            // So that no cloud is asked whether this is its machine.
            ("NO_GCE_CHECK", "true".to_owned()),
        ];
        let shell = shell.map(|(name, value)| (name.to_owned(), value)).into();
        Self { home, sandbox: Sandbox::start(&[]), shell }
    }

    /// With a profile `work` that gets its identity from the file that [`Self::puts_token`] makes.
    fn configured() -> Self {
        let person = Self::new();
        person.writes_config(&person.profile("work"));
        person
    }

    fn profile(&self, name: &str) -> String {
        self.sandbox.file_profile(name, &self.path("token.jwt"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path(".config/wandb-cred/config.toml")
    }

    fn writes(&self, path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
    }

    fn writes_config(&self, text: &str) {
        self.writes(&self.config(), text);
    }

    fn edits_config(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).expect("a configuration");
        assert!(text.contains(from), "{from} is not in {text}");
        self.writes_config(&text.replacen(from, to, 1));
    }

    fn puts_token(&self) {
        self.writes(&self.path("token.jwt"), &self.sandbox.control().mint(""));
    }

    fn sets(&mut self, name: &str, value: impl Into<String>) {
        self.shell.insert(name.to_owned(), value.into());
    }

    /// Types a line. `export` and `unset` last, as in a shell.
    fn types(&mut self, line: &str) -> Said {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("unset"), Some(name)) => drop(self.shell.remove(name)),
            (Some("export"), Some(set)) => {
                let (name, value) = set.split_once('=').expect("NAME=VALUE");
                self.sets(name, value);
            }
            _ => {}
        }
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", line]).env_clear().envs(&self.shell).current_dir(self.home.path());
        let output = shell.stdin(Stdio::null()).output().expect("sh runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let code = output.status.code().expect("it ends by itself");
        Said { line: line.to_owned(), code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Types what does not work: it says so at once, and ends with a next step.
    fn fails(&mut self, line: &str, code: i32) -> Said {
        let begun = now();
        let said = self.types(line);
        let took = now() - begun;
        assert_eq!(said.code, code, "{said:?}");
        // Nothing here gets better by waiting. A machine may be slow to start programs.
        assert!(took < Duration::from_secs(8), "it took {took:?}: {said:?}");
        assert!(!said.commands().is_empty(), "no next step: {said:?}");
        let last = said.err.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("  next: ") || last.contains("run: "),
            "the last line is no next step: {said:?}"
        );
        said
    }

    fn works(&mut self, line: &str) -> Said {
        let said = self.types(line);
        assert_eq!(said.code, 0, "{said:?}");
        said
    }

    /// Types the first command that was advised, which works, and then what did not.
    fn follows(&mut self, said: &Said) {
        let advised = said.first();
        self.works(&advised);
        self.works(&said.line);
    }
}

impl Drop for Person {
    /// Ends the daemons that were started on demand. They would end by themselves, after a while.
    fn drop(&mut self) {
        let folders = fs::read_dir(self.path("run/wandb-cred")).into_iter().flatten().flatten();
        let sockets = folders.map(|folder| folder.path().join("wandb-cred.sock"));
        for socket in sockets.chain([self.path("run/wandb-cred/wandb-cred.sock")]) {
            let Ok(stream) = std::os::unix::net::UnixStream::connect(&socket) else { continue };
            let Ok(answer) = crate::talk::ask(stream, "GET", "/v1/status", &[], "") else { continue };
            let pid = answer.json()["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }
}

impl Said {
    /// The commands that it says to type, in their order.
    fn commands(&self) -> Vec<String> {
        let both = format!("{}\n{}", self.out, self.err);
        let advice = both.lines().filter_map(|line| {
            line.split_once("next: ").or_else(|| line.split_once("run: ")).map(|(_, advice)| advice)
        });
        advice.flat_map(commands_in).collect()
    }

    fn first(&self) -> String {
        self.commands().into_iter().next().unwrap_or_else(|| panic!("no command: {self:?}"))
    }

    /// The one that begins so.
    fn that_begins(&self, start: &str) -> String {
        let found = self.commands().into_iter().find(|command| command.starts_with(start));
        found.unwrap_or_else(|| panic!("no {start}: {self:?}"))
    }
}

/// `wandb-cred check, or wandb-cred init --force to replace it` are two commands, and some words.
fn commands_in(advice: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in advice.split([',', ';', '(', ')']) {
        let start = HEADS.iter().filter_map(|head| part.find(head)).min();
        let Some(command) = start.map(|start| &part[start..]) else { continue };
        let end = WORDS.iter().filter_map(|word| command.find(word)).min().unwrap_or(command.len());
        found.push(command[..end].trim().to_owned());
    }
    found
}

/// What commands begin with.
const HEADS: [&str; 8] =
    ["wandb-cred ", "wandb-credd", "unset ", "export ", "chmod ", "command -v ", "ls ", "move "];

/// What goes on after one.
const WORDS: [&str; 5] = [" to replace it", " to run it", " so that", " for this", " &&"];

#[test]
fn commands_are_found_in_sentences() {
    assert_eq!(
        commands_in("wandb-cred check, or wandb-cred init --force to replace it"),
        ["wandb-cred check", "wandb-cred init --force"]
    );
    assert_eq!(commands_in("edit /x/config.toml, then: wandb-cred check"), ["wandb-cred check"]);
    assert_eq!(commands_in("wandb-cred exec -- CMD (starts its own daemon), or: wandb-credd &").len(), 2);
    assert!(commands_in("ask your administrator").is_empty());
}
