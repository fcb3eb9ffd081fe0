//! `wandb-cred token` as a whole process: its time against other programs, its instructions and system calls.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::Result;
use crate::peers::{self, Peer};
use crate::scene::{Daemon, Scene};
use crate::table::{Bound, Table, median};

pub(crate) fn runs(scene: &Scene, table: &mut Table) -> Result {
    let daemon = scene.daemon("command")?;
    daemon.token()?;
    let mut nothing = Peer::new("/bin/true", Command::new("/bin/true"));
    let mut ours = Peer::new("wandb-cred token", token(scene, &daemon));
    let mut others = peers::all(scene, table)?;
    for _ in 0..ROUNDS {
        let mut turn: Vec<_> = others.iter_mut().chain([&mut nothing, &mut ours]).collect();
        // Whoever comes after a heavy one pays for the caches it took.
        fastrand::shuffle(&mut turn);
        for peer in turn {
            peer.run()?;
        }
    }
    let mine = median(&mut ours.times);
    let nothing = median(&mut nothing.times);
    let shown = format!("{:.2} ({:.0} us)", mine / nothing, mine * 1e6);
    let figure = "wandb-cred token, whole process / /bin/true";
    table.add(figure, mine / nothing, shown, Bound::AtMost(1.0), Bound::AtMost(0.85));
    for peer in &mut others {
        let theirs = median(&mut peer.times);
        let shown = format!("{:.2} ({:.0} us)", mine / theirs, theirs * 1e6);
        let figure = format!("the same / {}", peer.name);
        table.add(figure, mine / theirs, shown, Bound::AtMost(peer.budget), None);
    }
    Ok(())
}

/// What repeats exactly, under fixed surroundings.
pub(crate) fn counts(scene: &Scene, table: &mut Table) -> Result {
    let daemon = scene.daemon("counts")?;
    daemon.token()?;
    let ours = token(scene, &daemon);

    let mut callgrind = under("valgrind", &["--tool=callgrind", "--callgrind-out-file=/dev/null"], &ours);
    match callgrind.output() {
        Err(error) => table.skip("instructions of wandb-cred token", format!("valgrind: {error}")),
        Ok(output) => {
            let log = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "wandb-cred under valgrind: {log}");
            let line = log.lines().find_map(|line| line.split_once("Collected : "));
            let count: f64 = line.context("callgrind's count")?.1.trim().parse()?;
            let shown = format!("{:.0} k", count / 1e3);
            table.exact(
                "instructions of wandb-cred token",
                count,
                shown,
                Bound::AtMost(MAX_INSTRUCTIONS),
                None,
            );
        }
    }

    let trace = scene.dir.path().join("strace");
    let path = trace.to_str().context("a plain folder")?;
    match under("strace", &["-f", "-o", path], &ours).output() {
        Err(error) => table.skip("system calls of wandb-cred token", format!("strace: {error}")),
        Ok(output) => {
            ensure!(output.status.success(), "strace: {}", String::from_utf8_lossy(&output.stderr));
            let calls = std::fs::read_to_string(&trace)?.lines().filter(|line| line.contains('(')).count();
            let bound = Bound::AtMost(MAX_SYSTEM_CALLS);
            table.exact("system calls of wandb-cred token", calls as f64, calls.to_string(), bound, None);
        }
    }
    Ok(())
}

/// The command, in an environment that says nothing but where the daemon is.
fn token(scene: &Scene, daemon: &Daemon) -> Command {
    let mut command = Command::new(scene.program("wandb-cred"));
    command.arg("token").env_clear().env("WANDB_CRED_SOCKET", &daemon.socket);
    command
}

fn under(tool: &str, options: &[&str], program: &Command) -> Command {
    let mut command = Command::new(tool);
    command.args(options).arg(program.get_program()).args(program.get_args());
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null());
    command
}

impl Peer {
    fn run(&mut self) -> Result {
        let input = match &self.input {
            Some(path) => Stdio::from(std::fs::File::open(path)?),
            None => Stdio::null(),
        };
        self.command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        let status = self.command.status()?;
        self.times.push(began.elapsed().as_secs_f64());
        ensure!(status.success(), "{}: {status}", self.name);
        Ok(())
    }
}

const ROUNDS: usize = 300;

/// Ceilings, a little over what was counted when they were set: lower them when the counts fall.
const MAX_INSTRUCTIONS: f64 = 250_000.0;
const MAX_SYSTEM_CALLS: f64 = 45.0;
