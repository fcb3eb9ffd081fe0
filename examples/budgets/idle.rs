//! A daemon that has made one exchange and is left alone: wake-ups and memory; then its memory after bursts.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::ensure;

use crate::Result;
use crate::setup::{Daemon, Setup, until};
use crate::table::{Bound, Table};

pub(crate) fn wakeups_and_memory(setup: &Setup, short: bool, table: &mut Table) -> Result {
    let daemon = setup.tls_daemon("idle")?;
    daemon.token()?;
    // The exchange's aftermath: helper threads, the SDK files and their sync. What wakes up more often than the window is
    // long is still seen below.
    let quiet = || {
        let before = daemon.running.wakeups();
        std::thread::sleep(Duration::from_secs(2));
        let one_thread = daemon.running.threads().is_ok_and(|count| count == 1);
        one_thread && before.is_ok_and(|before| daemon.running.wakeups().is_ok_and(|after| after == before))
    };
    until("the daemon comes to rest after its exchange", quiet)?;

    let watched = Duration::from_secs(if short { 15 } else { 60 });
    let before = daemon.running.wakeups()?;
    std::thread::sleep(watched);
    let wakeups = daemon.running.wakeups()? - before;
    table.add_exact(format!("idle wake-ups in {} s", watched.as_secs()), 0, wakeups);
    if short {
        return Ok(());
    }

    let idle = mebibytes(&daemon)?;
    table.add("idle RSS, MiB", Bound::AtMost(10.0), idle, format!("{idle:.2}"));

    let mut after = Vec::new();
    for _ in 0..BURSTS {
        burst(&daemon)?;
        after.push(mebibytes(&daemon)?);
    }
    let (second, last) = (after[1], after[BURSTS - 1]);
    let ratio = last / second;
    let shown = format!("{ratio:.2} ({last:.1} / {second:.1} MiB)");
    let figure = format!("RSS after {BURSTS} bursts of {CONNECTIONS} connections / after two");
    table.add(figure, Bound::AtMost(1.1), ratio, shown);
    Ok(())
}

/// Opens many connections, has each answered, and closes them all. Returns when the daemon has closed them too.
fn burst(daemon: &Daemon) -> Result {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;

    let before = daemon.running.open_files()?;
    let mut open = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut stream = UnixStream::connect(&daemon.socket)?;
        stream.write_all(b"GET /v1/token HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        open.push(stream);
    }
    let mut answer = [0; 8192];
    for stream in &mut open {
        let read = stream.read(&mut answer)?;
        ensure!(answer[..read].starts_with(b"HTTP/1.1 200"), "a connection of the burst was refused");
    }
    drop(open);
    until("the daemon closed the burst's connections", || {
        daemon.running.open_files().is_ok_and(|count| count <= before)
    })
}

fn mebibytes(daemon: &Daemon) -> Result<f64> {
    Ok(daemon.running.resident()? as f64 / 1024.0)
}

const BURSTS: usize = 10;
const CONNECTIONS: usize = 2000;
