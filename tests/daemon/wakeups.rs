//! An idle daemon with nothing due sleeps.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::setup::{Daemon, Home, Sandbox, now, until};

/// Times that any thread gave up the processor of its own will: each is a wake-up before.
pub(crate) fn wakeups(daemon: &Daemon) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap_or_default();
    tasks
        .flatten()
        .flat_map(|task| status(task).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        .sum()
}

fn threads(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs").count()
}

#[test]
fn an_idle_daemon_does_not_wake_at_all() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let fresh = home.daemon();
    let other = Home::new(&sandbox.profile("work"));
    let used = other.daemon();
    used.token("");
    for daemon in [&fresh, &used] {
        until("helper threads end", 20, || (threads(daemon) == 1).then_some(()));
    }
    // The last round over the connections comes within five seconds of the last of them; then nothing is due.
    let mut quiet = (now(), [0, 0]);
    until("the last round", 20, || {
        let counts = [wakeups(&fresh), wakeups(&used)];
        if counts != quiet.1 {
            quiet = (now(), counts);
        }
        (now() - quiet.0 > Duration::from_secs(6)).then_some(())
    });
    let before = [wakeups(&fresh), wakeups(&used)];
    let start = now();
    while now() - start < Duration::from_secs(10) {
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!([wakeups(&fresh), wakeups(&used)], before, "a timer ticks");
    println!("idle: {} KiB fresh, {} KiB after an exchange", fresh.memory(), used.memory());
}
