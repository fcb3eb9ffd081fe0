//! Starts a daemon in the background, so that it is not a child of the process it serves.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::Exit;

/// Starts this program again without `--background`, and returns once its socket answers.
///
/// The caller then exits, so that the daemon is not a child of the job it serves: a job that waits for all its children
/// must not wait for the daemon.
pub(super) fn spawn(socket: &Path) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed {
        why: format!("cannot start in the background: {error}"),
        exit: Exit::System,
    };
    let program = std::env::current_exe().map_err(failed)?;
    let args = std::env::args_os().skip(1).filter(|arg| arg != "--background");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    for _ in 0..START_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            let exit = status.code().and_then(Exit::from_code).unwrap_or(Exit::Software);
            return Err(Failed { why: "the background daemon did not start".to_owned(), exit });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let _ = child.kill();
    Err(Failed {
        why: format!("the daemon did not answer within {} s", START_TIMEOUT.as_secs()),
        exit: Exit::TryLater,
    })
}

/// Why there is no background daemon. If it stopped by itself, it has printed the reason.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct Failed {
    why: String,
    pub(super) exit: Exit,
}

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
