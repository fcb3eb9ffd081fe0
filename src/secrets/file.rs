//! Stores a sign-in in a 0600 file in a 0700 folder. For machines without a keyring; only used if configured.

use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Key, failed};
use crate::atomic_file;
use crate::error::Error;
use crate::paths;
use crate::token::Secret;

/// The folder of all session files.
#[derive(Clone, Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn load(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(key);
        let mut open = std::fs::OpenOptions::new();
        open.read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let mut file = match open.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable("read", &path, &error)),
        };
        let meta = file.metadata().map_err(|error| unusable("read", &path, &error))?;
        let uid = rustix::process::geteuid().as_raw();
        if meta.uid() != uid || meta.mode() & 0o077 != 0 {
            return Err(failed(format!(
                "{} has mode {:04o} and owner {}, so others may have read the secret in it; run: chmod 600 {}",
                path.display(),
                meta.mode() & 0o7777,
                meta.uid(),
                path.display()
            )));
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        file.read_to_end(&mut bytes).map_err(|error| unusable("read", &path, &error))?;
        Ok(Some(bytes))
    }

    pub(super) fn save(&self, key: &Key, value: &Secret<String>) -> Result<(), Error> {
        self.create()?;
        atomic_file::replace(&self.path(key), value.expose().as_bytes()).map_err(failed)
    }

    /// Only for the holder of the session's lock.
    pub(super) fn prepare(&self, key: &Key, size: usize) -> Result<atomic_file::Prepared, Error> {
        self.create()?;
        let path = self.path(key);
        atomic_file::remove_leftovers_of(&path);
        atomic_file::prepare(&path, size).map_err(failed)
    }

    fn create(&self) -> Result<(), Error> {
        paths::private_dir(&self.0).map_err(|error| failed(error.message))
    }

    pub(super) fn delete(&self, key: &Key) -> Result<(), Error> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.0.join(format!("{}.json", key.short()))
    }
}

fn unusable(what: &str, path: &Path, error: &io::Error) -> Error {
    failed(format!("cannot {what} {}: {error}", path.display()))
}
