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
    (nothing.budget, nothing.stretch) = (Some(1.0), Some(0.85));
    let mut others = vec![nothing];
    match least(scene, &daemon) {
        Ok(least) => others.push(least),
        Err(error) => {
            table.skip("wandb-cred token, whole process / the least client in C", format!("{error:#}"));
        }
    }
    others.extend(peers::all(scene, table)?);
    for other in &mut others {
        // One at a time: beside a third and heavier one, both would pay for the caches that it took.
        let mut ours = Peer::new("wandb-cred token", token(scene, &daemon));
        for _ in 0..ROUNDS {
            other.run()?;
            ours.run()?;
        }
        let (mine, theirs) = (median(&mut ours.times), median(&mut other.times));
        let shown = format!("{:.2} ({:.0} us / {:.0} us)", mine / theirs, mine * 1e6, theirs * 1e6);
        let figure = format!("wandb-cred token, whole process / {}", other.name);
        let (budget, stretch) = (other.budget.map(Bound::AtMost), other.stretch.map(Bound::AtMost));
        table.add(figure, mine / theirs, shown, budget, stretch);
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

/// What no client of this daemon can be faster than: connects, asks, copies the answer; static, without a heap.
fn least(scene: &Scene, daemon: &Daemon) -> Result<Peer> {
    const SOURCE: &str = r#"
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
    static const char ask[] = "GET /v1/token HTTP/1.1\r\nHost: wandb-cred\r\nConnection: close\r\n\r\n";
    struct sockaddr_un at = {AF_UNIX};
    char answer[4096];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(at.sun_path, argv[1], sizeof at.sun_path - 1);
    if (connect(fd, (void *)&at, sizeof at) || write(fd, ask, sizeof ask - 1) < 0) return 1;
    ssize_t length = read(fd, answer, sizeof answer);
    return length <= 0 || write(1, answer, length) != length;
}"#;
    let (source, program) = (scene.dir.path().join("least.c"), scene.dir.path().join("least"));
    std::fs::write(&source, SOURCE)?;
    let built =
        Command::new("cc").args(["-O2", "-static", "-o"]).args([&program, &source]).status().context("cc")?;
    ensure!(built.success(), "cc: {built}");
    let mut command = Command::new(program);
    command.arg(&daemon.socket).env_clear();
    Ok(Peer::new("the least client in C", command))
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
const MAX_INSTRUCTIONS: f64 = 50_000.0;
const MAX_SYSTEM_CALLS: f64 = 38.0;
