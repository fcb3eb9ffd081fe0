//! The daemon at rest: memory, wake-ups; and how soon it is up.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::Result;
use crate::scene::{Daemon, Scene};
use crate::table::{Bound, Table, median};

/// A daemon that has made one exchange and is left alone.
pub(crate) struct Idle {
    daemon: Daemon,
    since: Instant,
}

impl Idle {
    pub(crate) fn start(scene: &Scene) -> Result<Self> {
        let daemon = scene.tls_daemon("at-rest")?;
        daemon.token()?;
        Ok(Self { daemon, since: Instant::now() })
    }

    pub(crate) fn finish(self, short: bool, table: &mut Table) -> Result {
        // What the exchange started ends first: threads that read files, the look for silent connections.
        std::thread::sleep(SETTLED.saturating_sub(self.since.elapsed()));
        let watched = Duration::from_secs(if short { 15 } else { 60 });
        let before = self.daemon.running.wakes()?;
        std::thread::sleep(watched);
        let wakes = self.daemon.running.wakes()? - before;
        let shown = format!("{wakes} in {} s", watched.as_secs());
        let a_minute = wakes as f64 * 60.0 / watched.as_secs_f64();
        let none = Bound::AtMost(0.0);
        table.exact("wake-ups a minute with nothing due", a_minute, shown, none, none);

        if short {
            return Ok(());
        }
        let resident = self.daemon.running.resident()?;
        let mebibytes = resident as f64 / 1024.0;
        let (budget, stretch) = (Bound::AtMost(6.0), Bound::AtMost(4.5));
        let figure = "RSS idle after an exchange, MiB";
        table.add(figure, mebibytes, format!("{mebibytes:.2}"), budget, stretch);

        let peak = self.burst()?;
        std::thread::sleep(Duration::from_secs(10));
        let after = self.daemon.running.resident()? as f64 / 1024.0;
        let ratio = after / mebibytes;
        let shown = format!("{ratio:.2} ({after:.2} MiB; {peak:.1} MiB in the burst)");
        let figure = format!("RSS 10 s after {BURST} connections / idle");
        table.add(figure, ratio, shown, Bound::AtMost(1.25), Bound::AtMost(1.1));
        Ok(())
    }

    /// Opens many connections, has each answered, and closes them all. Memory with all open, in MiB.
    fn burst(&self) -> Result<f64> {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let limit = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
        let mut open = Vec::with_capacity(BURST);
        for _ in 0..BURST {
            let mut stream = UnixStream::connect(&self.daemon.socket)?;
            stream.write_all(b"GET /v1/token HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            open.push(stream);
        }
        let mut answer = [0; 8192];
        for stream in &mut open {
            let read = stream.read(&mut answer)?;
            ensure!(answer[..read].starts_with(b"HTTP/1.1 200"), "a connection of the burst was refused");
        }
        Ok(self.daemon.running.resident()? as f64 / 1024.0)
    }
}

pub(crate) fn start(scene: &Scene, table: &mut Table) -> Result {
    let mut times = Vec::new();
    for round in 0..STARTS {
        let daemon = scene.daemon(&format!("start-{round}"))?;
        times.push(daemon.started_in.as_secs_f64() * 1e3);
    }
    let middle = median(&mut times);
    let figure = "daemon start to its socket answering, ms";
    table.add(figure, middle, format!("{middle:.1}"), Bound::AtMost(30.0), Bound::AtMost(10.0));
    Ok(())
}

const SETTLED: Duration = Duration::from_secs(10);
const BURST: usize = 2000;
const STARTS: usize = 21;
