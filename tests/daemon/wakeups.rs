//! An idle daemon with nothing due sleeps.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::feed::Fed;
use crate::setup::{COMMAND, Daemon, Home, Sandbox, now, until};

/// Times that any thread gave up the processor of its own will: each is a wake-up before.
pub(crate) fn wakeups(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap_or_default();
    tasks
        .flatten()
        .flat_map(|task| status(task).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        .sum()
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").count()
}

#[test]
fn an_idle_daemon_does_not_wake_at_all() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let fresh = home.daemon();
    let other = Home::new(&sandbox.profile("work"));
    let used = other.daemon();
    used.token("");
    let fed = Fed::serving("wb_at_1");
    // One that was started on demand, while a job runs.
    let third = Home::new(&sandbox.profile("work"));
    let mut job = third.program(COMMAND, &["exec", "--", "sleep", "1000"]).spawn().expect("starts");
    let on_demand = until("it serves the job", 20, || {
        let status: serde_json::Value = serde_json::from_str(&third.run(&["status", "--json"]).out).ok()?;
        (status["profiles"][0]["jobs"] == 1).then_some(status["pid"].as_u64()?)
    });
    let on_demand = u32::try_from(on_demand).expect("a pid");
    // One thread waits for the next line.
    for (daemon, own) in [(fresh.pid(), 1), (used.pid(), 1), (on_demand, 1), (fed.daemon.pid(), 2)] {
        until("helper threads end", 20, || (threads(daemon) == own).then_some(()));
    }
    let count = || [fresh.pid(), used.pid(), on_demand, fed.daemon.pid()].map(wakeups);
    // The last round over the connections comes within five seconds of the last of them; then nothing is due.
    let mut quiet = (now(), [0; 4]);
    until("the last round", 20, || {
        let counts = count();
        if counts != quiet.1 {
            quiet = (now(), counts);
        }
        (now() - quiet.0 > Duration::from_secs(6)).then_some(())
    });
    let before = count();
    let start = now();
    while now() - start < Duration::from_secs(10) {
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(count(), before, "a timer ticks");
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    let [fresh, used, fed] = [&fresh, &used, &fed.daemon].map(Daemon::memory);
    println!("idle: {fresh} KiB fresh, {used} KiB after an exchange, {fed} KiB fed");
}
