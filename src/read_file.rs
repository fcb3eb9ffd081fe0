//! Reads files whose paths a user or the environment names, as a daemon must: such a path may lead to a FIFO that nobody
//! writes, a device without end, or a mount whose server is gone.
//!
//! Opening never waits for a writer, only regular files are read, and no more than a limit. A file system that does not
//! answer holds its caller for [`TIMEOUT`] only. Every error names the file.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::blocking;
use crate::error::{Error, FileFault, Kind, Result, Stage};

/// Opens a regular file.
pub fn open(path: &Path) -> Result<(File, Metadata)> {
    // Without NONBLOCK a FIFO blocks until somebody writes, and without NOCTTY a terminal would become ours.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let file = file.map_err(|error| match (error.raw_os_error(), path.metadata()) {
        // The system's words for a socket are "no such device or address".
        (Some(code), Ok(meta)) if code == rustix::io::Errno::NXIO.raw_os_error() && !meta.is_file() => {
            irregular(path, meta.file_type())
        }
        _ => failed(path, &error),
    })?;
    let meta = file.metadata().map_err(|error| failed(path, &error))?;
    if meta.is_file() { Ok((file, meta)) } else { Err(irregular(path, meta.file_type())) }
}

/// What is in an open file, which `path` led to.
pub fn content(file: File, path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 * 1024));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| failed(path, &error))?;
    if bytes.len() as u64 > limit {
        let message = format!("{} is larger than {limit} bytes", path.display());
        return Err(Error::file(Stage::Identity, path, FileFault::TooLarge, message));
    }
    Ok(bytes)
}

pub fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    content(open(path)?.0, path, limit)
}

pub fn read_text(path: &Path, limit: u64) -> Result<Zeroizing<String>> {
    text(read(path, limit)?, path)
}

/// Bytes that must be text.
pub fn text(bytes: Zeroizing<Vec<u8>>, path: &Path) -> Result<Zeroizing<String>> {
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => {
            let message = format!("{} is not text", path.display());
            Err(Error::file(Stage::Identity, path, FileFault::Malformed, message))
        }
    }
}

/// Runs `work`, which reads `path`, off the daemon's one thread, and waits for it for [`TIMEOUT`] at most.
pub async fn off_thread<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    blocking::within(TIMEOUT, path, work).await.map_err(|error| unread(path, &error)).flatten()
}

/// The same for a program that can do nothing else meanwhile.
pub fn within_time<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    blocking::wait(TIMEOUT, path, work).map_err(|error| unread(path, &error)).flatten()
}

fn unread(path: &Path, error: &io::Error) -> Error {
    if error.kind() != ErrorKind::TimedOut {
        return failed(path, error);
    }
    let message = format!(
        "{} does not answer within {} s; is it on a network mount whose server is gone?",
        path.display(),
        TIMEOUT.as_secs()
    );
    Error::file(Stage::Identity, path, FileFault::TimedOut, message).kind(Kind::Transient)
}

/// A missing file may come, but permissions do not change by themselves.
fn failed(path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied => Kind::Misconfigured,
        _ => Kind::Transient,
    };
    let message = format!("cannot read {}: {error}", path.display());
    Error::file(Stage::Identity, path, error.into(), message).kind(kind)
}

/// The error for what is not a regular file: says what it is.
pub fn irregular(path: &Path, kind: FileType) -> Error {
    let what = if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let message = format!("{} is {what}, not a regular file", path.display());
    Error::file(Stage::Identity, path, FileFault::NotARegularFile, message)
}

/// More than any token, secret, certificate bundle or settings of a cloud's command.
pub const LIMIT: u64 = 1024 * 1024;

/// A local disk answers in milliseconds, and a busy network mount in a second or two.
pub const TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn fault(path: &Path) -> (Option<FileFault>, String) {
        let error = read(path, 16).expect_err("not usable");
        (error.file_fault().cloned(), error.message)
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_never_waited_for() {
        let dir = tempfile::tempdir().expect("temp dir");
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(made.success());
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("bound");
        for (path, what) in [
            (fifo.as_path(), "a FIFO"),
            (&socket, "a socket"),
            (dir.path(), "a folder"),
            (Path::new("/dev/zero"), "a device"),
            (Path::new("/dev/tty"), ""),
        ] {
            let (fault, message) = fault(path);
            assert!(message.contains(&path.display().to_string()) && message.contains(what), "{message}");
            if !what.is_empty() {
                assert_eq!(fault, Some(FileFault::NotARegularFile), "{message}");
            }
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("file");
        std::fs::write(&path, "x".repeat(16)).expect("written");
        assert_eq!(read_text(&path, 16).expect("read").len(), 16);
        std::fs::write(&path, "x".repeat(17)).expect("written");
        assert_eq!(fault(&path).0, Some(FileFault::TooLarge));
        assert_eq!(fault(&dir.path().join("missing")).0, Some(FileFault::Missing));
    }

    #[tokio::test]
    async fn a_file_system_that_does_not_answer_is_named() {
        let path = Path::new("/a/dead/mount/file");
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let hangs = off_thread(path, move || {
            let _ = blocked.recv();
            Ok(())
        });
        let error = hangs.await.expect_err("no answer");
        assert_eq!((error.file_fault(), error.kind), (Some(&FileFault::TimedOut), Kind::Transient));
        assert!(error.message.contains("/a/dead/mount/file"), "{error}");
        drop(release);
    }
}
