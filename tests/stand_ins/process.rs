//! Starts the stand-ins and the vendors' clients under tests/peers.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// A stand-in that runs until this is dropped.
pub(crate) struct StandIn {
    pub(crate) address: String,
    child: Child,
    /// Closing it tells the stand-in to end, also when the test process dies.
    _stdin: ChildStdin,
}

impl StandIn {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let stdin = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("a line").expect("text");
        let address = line.strip_prefix("ready ").expect("ready").to_owned();
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { address, child, _stdin: stdin }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The vendor's client must accept the stand-in first.
pub(crate) fn judge(command: &mut Command) {
    let output = command.output().expect("the judge runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the vendor's own client refuses the stand-in: {said}");
}

/// A script of tests/peers/stand_ins, with the clients of SPIFFE and Kubernetes.
pub(crate) fn python(script: &str) -> Command {
    script_in("stand-ins", script)
}

/// A script of tests/peers/stand_ins, with the clients of the clouds.
pub(crate) fn cloud_python(script: &str) -> Command {
    script_in("clouds", script)
}

/// Nothing of this process' environment, so that a developer's own clouds stay out of it.
fn script_in(venv: &str, script: &str) -> Command {
    let mut command = Command::new(root().join(".test/venvs").join(venv).join("bin/python"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONPATH", peers()).arg(peers().join("stand_ins").join(script));
    command
}

pub(crate) fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(peers().join(script));
    command
}

fn peers() -> PathBuf {
    root().join("tests/peers")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
