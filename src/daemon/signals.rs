//! Signals, as a stream of what to do.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tokio::io::AsyncReadExt as _;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGHUP
    Reload,
    /// SIGTERM, SIGINT
    Stop,
}

/// Handlers that are installed; signals wait in the pipes until somebody listens.
pub(super) struct Pending {
    reload: UnixStream,
    stop: UnixStream,
}

pub(super) fn install() -> io::Result<Pending> {
    let (reload, reload_end) = UnixStream::pair()?;
    let (stop, stop_end) = UnixStream::pair()?;
    pipe::register(SIGHUP, reload_end)?;
    pipe::register(SIGTERM, stop_end.try_clone()?)?;
    pipe::register(SIGINT, stop_end)?;
    Ok(Pending { reload, stop })
}

impl Pending {
    /// Needs a runtime.
    pub(super) fn listen(self) -> io::Result<Signals> {
        let into = |stream: UnixStream| {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        };
        Ok(Signals { reload: into(self.reload)?, stop: into(self.stop)? })
    }
}

pub(super) struct Signals {
    reload: tokio::net::UnixStream,
    stop: tokio::net::UnixStream,
}

impl Signals {
    /// The next thing to do. Several signals of a kind that came together count once. Cancel-safe.
    pub(super) async fn next(&mut self) -> Signal {
        let (mut many, mut some) = ([0; 64], [0; 64]);
        tokio::select! {
            biased;
            _ = self.stop.read(&mut some) => Signal::Stop,
            _ = self.reload.read(&mut many) => Signal::Reload,
        }
    }
}
