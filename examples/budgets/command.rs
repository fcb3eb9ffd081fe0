//! `wandb-cred token` as a whole process: its time against other programs, and its system calls.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::Result;
use crate::peers::{self, Peer};
use crate::setup::{Daemon, Setup};
use crate::table::{Bound, Table, median};

pub(crate) fn times(setup: &Setup, table: &mut Table) -> Result {
    let daemon = setup.daemon("command")?;
    daemon.token()?;
    for mut peer in peers::all(setup, table) {
        // With one peer at a time: with a third and heavier program, both would pay for the caches that it took.
        let mut token = token(setup, &daemon);
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            peer.run()?;
            times.push(time(token.stdin(Stdio::null()), "wandb-cred token")?);
        }
        let (ours, theirs) = (median(&mut times), median(&mut peer.times));
        let shown = format!("{:.2} ({:.0} / {:.0} us)", ours / theirs, ours * 1e6, theirs * 1e6);
        let figure = format!("wandb-cred token / {}", peer.name);
        table.add(figure, Bound::AtMost(peer.budget), ours / theirs, shown);
    }
    Ok(())
}

pub(crate) fn system_calls(setup: &Setup, table: &mut Table) -> Result {
    const FIGURE: &str = "system calls of wandb-cred token";
    let daemon = setup.daemon("system-calls")?;
    daemon.token()?;
    let trace = setup.dir.path().join("strace");
    let token = token(setup, &daemon);
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&trace).arg(token.get_program()).args(token.get_args());
    strace.env_clear().env("PATH", "/usr/bin:/bin").env("WANDB_CRED_SOCKET", &daemon.socket);
    match strace.stdin(Stdio::null()).output().context("strace") {
        Err(error) => table.skip(FIGURE, &error),
        Ok(output) => {
            ensure!(output.status.success(), "strace: {}", String::from_utf8_lossy(&output.stderr));
            let calls = std::fs::read_to_string(&trace)?.lines().filter(|line| line.contains('(')).count();
            table.add_exact(FIGURE, MAX_SYSTEM_CALLS, calls.try_into()?);
        }
    }
    Ok(())
}

/// The command, in an environment that says only where the daemon is.
fn token(setup: &Setup, daemon: &Daemon) -> Command {
    let mut command = Command::new(setup.program("wandb-cred"));
    command.arg("token").env_clear().env("WANDB_CRED_SOCKET", &daemon.socket);
    command
}

impl Peer {
    fn run(&mut self) -> Result {
        let input = match &self.input {
            Some(path) => Stdio::from(std::fs::File::open(path)?),
            None => Stdio::null(),
        };
        self.times.push(time(self.command.stdin(input), self.name)?);
        Ok(())
    }
}

/// Seconds from spawn to exit.
fn time(command: &mut Command, name: &str) -> Result<f64> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let status = command.status()?;
    let elapsed = began.elapsed();
    ensure!(status.success(), "{name}: {status}");
    Ok(elapsed.as_secs_f64())
}

const ROUNDS: usize = 300;

/// Of the dynamic debug build, which CI measures; a runtime, threads or reading the configuration would pass it.
const MAX_SYSTEM_CALLS: u64 = 100;
