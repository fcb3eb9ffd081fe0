//! SIGINT, SIGTERM and SIGHUP as something to wait for: tokio's own signal support is not in this build.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A byte to read for each signal that came.
pub(super) struct Signals(UnixStream);

impl Signals {
    /// Installs the handlers; from here on the signals no longer end the process by themselves.
    pub(super) fn install() -> anyhow::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }

    /// Blocks until a signal comes, at most for `patience`.
    pub(super) fn came_within(&mut self, patience: Duration) -> std::io::Result<bool> {
        self.0.set_read_timeout(Some(patience))?;
        loop {
            match self.0.read(&mut [0; 8]) {
                Ok(_) => return Ok(true),
                // By one of ours, whose byte is there now, or by being stopped and continued.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for one signal.
    pub(super) async fn recv(self) -> std::io::Result<()> {
        self.0.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(self.0)?;
        loop {
            stream.readable().await?;
            match stream.try_read(&mut [0; 8]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
