//! `file`: a JWT that somebody else keeps fresh in a file, such as a Kubernetes projected token.
//!
//! The path is opened anew for each attempt, so a symlink swap (`..data`) is followed, and a half-written
//! file is a transient error: the next attempt reads the whole one.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::{Error, Kind};
use crate::provider::{Context, Provider};
use crate::token::IdentityToken;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Absolute, or beginning with `~/`.
    pub path: PathBuf,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<File, Error> {
        let path = match (self.path.strip_prefix("~"), cx.env.var("HOME")) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => self.path,
        };
        if !path.is_absolute() {
            return Err(Error::misconfigured(format!(
                "provider file: path must be absolute, not {}",
                path.display()
            )));
        }
        Ok(File { path, cx })
    }
}

pub struct File {
    path: PathBuf,
    cx: Context,
}

#[async_trait]
impl Provider for File {
    fn name(&self) -> &'static str {
        "file"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let path = self.path.clone();
        // A file on a dead network mount blocks in open(2): never on the daemon's one thread.
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let raw =
            read.map_err(|_| Error::transient(format!("reading {} was cut short", self.path.display())))??;
        match self.cx.parse(&raw, self.path.display()) {
            Err(error) if error.kind == Kind::Rejected && self.changed_lately().await => {
                Err(error.kind(Kind::Transient).hint("it changed a moment ago and may be half-written"))
            }
            parsed => parsed,
        }
    }
}

impl File {
    /// Whether somebody may still be writing it.
    async fn changed_lately(&self) -> bool {
        let (path, now) = (self.path.clone(), self.cx.clock.now().wall);
        let changed = tokio::task::spawn_blocking(move || path.metadata()?.modified()).await;
        let changed = changed.ok().and_then(Result::ok).and_then(|at| jiff::Timestamp::try_from(at).ok());
        changed.is_some_and(|at| now.duration_since(at).unsigned_abs() < YOUNG)
    }
}

pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let at = |error: io::Error| {
        let message = format!("cannot read the identity token file {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => Error::misconfigured(message),
            _ => Error::transient(message),
        }
    };
    let file = std::fs::File::open(path).map_err(at)?;
    let meta = file.metadata().map_err(at)?;
    if !meta.is_file() {
        return Err(Error::misconfigured(format!("{} is not a regular file", path.display())));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(Error::misconfigured(format!(
            "{} can be written by everybody (mode {:04o}), so its content cannot be trusted; run: chmod o-w {}",
            path.display(),
            meta.mode() & 0o7777,
            path.display()
        )));
    }
    let mut raw = Zeroizing::new(Vec::with_capacity(8 * 1024));
    file.take(MAX_FILE).read_to_end(&mut raw).map_err(at)?;
    String::from_utf8(raw.to_vec())
        .map(Zeroizing::new)
        .map_err(|_| Error::rejected(format!("{} is not text, so it holds no JWT", path.display())))
}

/// Reads a file with a secret, which only its owner (us, or root) may be able to touch.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<String>, Error> {
    let at = path.display();
    let meta = std::fs::metadata(path)
        .map_err(|error| Error::misconfigured(format!("cannot read {at}: {error}")))?;
    let uid = rustix::process::geteuid().as_raw();
    if meta.uid() != uid && meta.uid() != 0 {
        let owner = meta.uid();
        return Err(Error::misconfigured(format!("{at} belongs to uid {owner}, not to us (uid {uid})")));
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(Error::misconfigured(format!(
            "{at} holds a secret and has mode {mode:04o}, open to others; run: chmod 600 {at}"
        )));
    }
    read(path)
}

/// Malformed content is blamed on its source only once the file is older.
const YOUNG: Duration = Duration::from_secs(5);

/// More than any JWT; a larger file is cut here and then refused as no JWT.
const MAX_FILE: u64 = 128 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_file_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("secret");
        std::fs::write(&path, "planted\n").expect("written");
        let mode =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        mode(0o640);
        let error = read_private(&path).expect_err("open").to_string();
        assert!(error.contains("chmod 600") && !error.contains("planted"), "{error}");
        mode(0o600);
        assert_eq!(read_private(&path).expect("closed").as_str(), "planted\n");
    }
}
