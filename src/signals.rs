//! SIGHUP, SIGTERM and SIGINT, as something to wait for: tokio's own signal support is not in this build.
//!
//! The daemon and the sandbox both use it. What a signal leads to is for them to decide.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tokio::io::AsyncReadExt as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Hangup,
    /// SIGTERM, or SIGINT (Ctrl-C)
    Terminate,
}

/// Installed handlers. Signals that arrive before [`Handlers::listen`] are not lost: they wait in the pipes.
pub struct Handlers {
    hangup: UnixStream,
    terminate: UnixStream,
}

/// Replaces the default handlers, which would end the process. Needs no runtime, so that a program can call it
/// before anything else.
pub fn install() -> io::Result<Handlers> {
    let (hangup, hangup_end) = UnixStream::pair()?;
    let (terminate, terminate_end) = UnixStream::pair()?;
    pipe::register(SIGHUP, hangup_end)?;
    pipe::register(SIGTERM, terminate_end.try_clone()?)?;
    pipe::register(SIGINT, terminate_end)?;
    Ok(Handlers { hangup, terminate })
}

impl Handlers {
    /// Must be called on a runtime.
    pub fn listen(self) -> io::Result<Signals> {
        let into_tokio = |stream: UnixStream| {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        };
        Ok(Signals { hangup: into_tokio(self.hangup)?, terminate: into_tokio(self.terminate)? })
    }
}

/// The signals that arrive.
pub struct Signals {
    hangup: tokio::net::UnixStream,
    terminate: tokio::net::UnixStream,
}

impl Signals {
    /// Waits for the next signal. Several of one kind that arrive together count once. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        let (mut hangups, mut terminations) = ([0; 64], [0; 64]);
        tokio::select! {
            biased;
            _ = self.terminate.read(&mut terminations) => Signal::Terminate,
            _ = self.hangup.read(&mut hangups) => Signal::Hangup,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_arrives_before_anyone_listens_is_kept() {
        let handlers = install().expect("installed");
        kill_process(getpid(), Raw::HUP).expect("sent");
        let mut signals = handlers.listen().expect("on a runtime");
        assert_eq!(signals.next().await, Signal::Hangup);
        kill_process(getpid(), Raw::TERM).expect("sent");
        assert_eq!(signals.next().await, Signal::Terminate);
    }
}
