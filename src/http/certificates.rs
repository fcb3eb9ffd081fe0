//! Where the CA certificates come from, and what is said when they do not.
//!
//! reqwest reads them (by rustls-native-certs), and waits for whatever it is pointed at. So a file that would never end is
//! refused before, and `Http` reads on a thread that it does not wait for without end.

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::{Error, FileFault, Reason};
use crate::read_file;

/// The place that hangs if reading the certificates does.
pub(super) fn place(env: &Env) -> PathBuf {
    named(env).map_or_else(|| Path::new("/etc/ssl").to_owned(), |(_, path)| path)
}

/// Refuses a named file that is a FIFO, a device or a folder. In a folder, only regular files are read.
pub(super) fn check(env: &Env) -> Result<(), Error> {
    match env.path(FILE).map(|path| read_file::open(&path)) {
        Some(Err(error)) => Err(unusable(env, &error.message)),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Nothing here says which https servers are genuine: an image without certificates, or a variable that leads nowhere.
pub(super) fn none(env: &Env) -> Error {
    match named(env) {
        Some((_, path)) => unusable(env, &format!("there are none in {}", path.display())),
        None => unusable(env, "this system has none; install ca-certificates"),
    }
}

/// They could not be read in time, or not now.
pub(super) fn unread(error: Error, env: &Env) -> Error {
    match error.file_fault() {
        Some(FileFault::TimedOut) => unusable(env, &error.message).kind(error.kind),
        Some(_) => error.context("https needs CA certificates"),
        None => error,
    }
}

fn unusable(env: &Env, why: &str) -> Error {
    let (variable, path) = named(env).unzip();
    let by = variable.map_or_else(String::new, |name| format!("{name}: "));
    Error::misconfigured(format!("https needs CA certificates: {by}{why}"))
        .because(Reason::NoCertificates { variable: variable.map(str::to_owned), path })
}

/// What the environment names instead of the system's own places.
fn named(env: &Env) -> Option<(&'static str, PathBuf)> {
    [FILE, FOLDERS].into_iter().find_map(|name| Some((name, env.path(name)?)))
}

/// rustls-native-certs reads both.
const FILE: &str = "SSL_CERT_FILE";
const FOLDERS: &str = "SSL_CERT_DIR";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_are_not_there_are_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(made.success());
        let fifo = fifo.to_str().expect("text");
        for (path, why) in [
            ("/nonexistent/ca.pem", "cannot read /nonexistent/ca.pem"),
            ("/dev/zero", "is a device"),
            ("/dev/null", "is a device"),
            ("/", "is a folder"),
            (fifo, "is a FIFO"),
        ] {
            let error = check(&Env::fixed([(FILE, path)])).expect_err(path);
            let message = &error.message;
            assert!(message.contains(FILE) && message.contains(path) && message.contains(why), "{message}");
            let reason = Reason::NoCertificates { variable: Some(FILE.to_owned()), path: Some(path.into()) };
            assert_eq!(error.reason, reason);
        }
        assert!(none(&Env::fixed([(FOLDERS, "/x")])).message.contains("SSL_CERT_DIR: there are none in /x"));
        assert!(none(&Env::fixed([("HOME", "/")])).message.contains("install ca-certificates"));
    }
}
