//! Files that only this user can read, and that are replaced whole or not at all, even if the power fails.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Writes `bytes` to `path`, in place of what is there.
///
/// A reader sees the old file or the new one, never a part. When this returns, the new one is on the disk.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes, |file| file.persist(path).map(drop).map_err(|error| error.error))
}

/// Writes `bytes` to `path`, and fails if there is a file already.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes, |file| file.persist_noclobber(path).map(drop).map_err(|error| error.error))
}

fn write(
    path: &Path,
    bytes: &[u8],
    rename: impl FnOnce(NamedTempFile) -> io::Result<()>,
) -> Result<(), Error> {
    let attempt = || {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // tempfile opens with O_EXCL and mode 0600.
        let mut file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        rename(file)?;
        // The rename itself must survive a power failure too.
        std::fs::File::open(dir)?.sync_all()
    };
    attempt().map_err(|source| Error { path: path.to_owned(), source })
}

/// Removes the temporary files that a killed process left in `dir`. Only for a folder with a single writer.
pub fn remove_leftovers(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub source: io::Error,
}

/// What the names of temporary files begin with.
const PREFIX: &str = ".writing-";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_replaced_file_is_private_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        std::fs::write(dir.path().join(".writing-old"), "x").expect("written");
        std::fs::write(&path, "old").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("chmod");
        remove_leftovers(dir.path());
        replace(&path, b"new").expect("replaced");
        assert_eq!(std::fs::read(&path).expect("there"), b"new");
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!((mode & 0o777, files_in(dir.path())), (0o600, 1));
    }

    #[test]
    fn an_existing_file_is_kept_unless_it_is_to_be_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        create(&path, b"first").expect("created");
        let refused = create(&path, b"second").expect_err("it exists");
        assert_eq!(refused.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).expect("there"), b"first");
        assert_eq!(files_in(dir.path()), 1);
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("missing/f");
        let failed = replace(&path, b"x").expect_err("no such folder").to_string();
        assert!(failed.contains(&path.display().to_string()), "{failed}");
    }

    fn files_in(dir: &Path) -> usize {
        std::fs::read_dir(dir).expect("listed").count()
    }
}
