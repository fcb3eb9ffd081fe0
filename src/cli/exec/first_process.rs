//! `exec` as the first process of a container (PID 1).
//!
//! There, orphans become its children: the daemon too, for which a command in its place would wait for ever. And when it
//! ends, the kernel kills everybody else. So it stays, as an init does: it runs the same `exec` as a child, forwards signals,
//! takes note of every child that ends, and has the daemon remove its files before it ends with the command's exit code.

use std::io::{self, IsTerminal as _};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::Signals;

use crate::cli::command_error::CommandError;
use crate::clock::Clock;
use crate::error::Exit;

/// Runs this same command line as a child to its end, and gives its exit code as a shell does.
pub(super) fn run() -> Result<ExitCode, CommandError> {
    let failed = |error: io::Error| {
        CommandError::new(Exit::System, format!("cannot act as the first process of a container: {error}"))
    };
    // Before the child, so that no signal is missed.
    let mut signals = Signals::new(FORWARDED.into_iter().chain([SIGCHLD])).map_err(failed)?;
    let child = std::env::current_exe()
        .and_then(|program| Command::new(program).args(std::env::args_os().skip(1)).spawn())
        .map_err(failed)?;
    let child = Pid::from_child(&child);
    let code = loop {
        if let Some(code) = reap(child) {
            break code;
        }
        for number in signals.wait() {
            // From a terminal they have reached the command already.
            let sent = FROM_TERMINAL.contains(&number) && io::stdin().is_terminal();
            if let Some(signal) = Signal::from_named_raw(number).filter(|_| !sent && number != SIGCHLD) {
                // The command may have ended meanwhile.
                let _ = kill_process(child, signal);
            }
        }
    };
    end_daemons();
    Ok(ExitCode::from(code))
}

/// Takes note of all children that have ended; the exit code of `child` if it is one of them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            code = exit_code(status);
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> Option<u8> {
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?))?;
    u8::try_from(code).ok()
}

/// Has the daemons that were started here end, which removes their files, and waits until they have. They go on while they
/// have other jobs, for as long as we wait: those end with us.
fn end_daemons() {
    let clock = Clock::system();
    let deadline = clock.now().boot + END_TIMEOUT;
    for daemon in daemons() {
        let _ = kill_process(daemon, Signal::TERM);
    }
    while !daemons().is_empty() && clock.now().boot < deadline {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The processes of our daemon's program that we see: all are in this container.
fn daemons() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| std::fs::read(entry.path().join("comm")).is_ok_and(|name| name == b"wandb-credd\n"))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

const FORWARDED: [i32; 9] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGTSTP, SIGWINCH];

/// A terminal sends these to all processes in its foreground.
const FROM_TERMINAL: [i32; 4] = [SIGINT, SIGQUIT, SIGTSTP, SIGWINCH];

const END_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
