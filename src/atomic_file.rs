//! Files that only this user can read, and that are replaced whole or not at all, even if the power fails.

use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Writes `bytes` to `path`, in place of what is there.
///
/// A reader sees the old file or the new one, never a part. When this returns, the new one is on the disk.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes, |file| file.persist(path).map(drop).map_err(|error| error.error))
}

/// Like [`replace`], for a file that everybody may read and that need not survive a power failure.
pub fn replace_readable(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let attempt = || {
        let mut file = beside(path)?;
        file.write_all(bytes)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    attempt().map_err(|source| Error { path: path.to_owned(), source })
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
        let mut file = beside(path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        rename(file)?;
        // The rename itself must survive a power failure too.
        std::fs::File::open(folder_of(path))?.sync_all()
    };
    attempt().map_err(|source| Error { path: path.to_owned(), source })
}

/// A file that is sure to fit, beside the one that it will replace.
#[derive(Debug)]
pub struct Prepared {
    file: NamedTempFile,
    path: PathBuf,
}

/// Proves that `path` can be replaced by `size` bytes: they are on the disk when this returns, with nothing in them yet.
pub fn prepare(path: &Path, size: usize) -> Result<Prepared, Error> {
    let attempt = || {
        let mut file = beside(path)?;
        // Written, not just reserved: some file systems count only what was written.
        file.write_all(&vec![b' '; size])?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    match attempt() {
        Ok(file) => Ok(Prepared { file, path: path.to_owned() }),
        Err(source) => Err(Error { path: path.to_owned(), source }),
    }
}

impl Prepared {
    /// Writes `bytes` in place of what is there.
    pub fn commit(self, bytes: &[u8]) -> Result<(), Error> {
        let Self { mut file, path } = self;
        let attempt = || {
            file.rewind()?;
            file.write_all(bytes)?;
            file.as_file().set_len(bytes.len() as u64)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            std::fs::File::open(folder_of(&path))?.sync_all()
        };
        attempt().map_err(|source| Error { path: path.clone(), source })
    }
}

/// A temporary file in the same folder.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    // tempfile opens with O_EXCL and mode 0600.
    tempfile::Builder::new().prefix(&temporary_prefix(path)).tempfile_in(folder_of(path))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{PREFIX}{name}-")
}

/// Removes the temporary files that a killed process left in `dir`. Only for a folder with a single writer.
pub fn remove_leftovers(dir: &Path) {
    remove_beginning_with(dir, PREFIX);
}

/// Removes those of one file. Only for its single writer.
pub fn remove_leftovers_of(path: &Path) {
    remove_beginning_with(folder_of(path), &temporary_prefix(path));
}

fn remove_beginning_with(dir: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
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

    #[test]
    fn a_prepared_file_replaces_the_old_one_when_it_is_committed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        std::fs::write(&path, "old").expect("written");
        let prepared = prepare(&path, 4096).expect("prepared");
        let size = prepared.file.as_file().metadata().expect("there").len();
        assert_eq!((std::fs::read(&path).expect("there").as_slice(), size), (&b"old"[..], 4096));
        prepared.commit(b"new").expect("committed");
        assert_eq!((std::fs::read(&path).expect("there").as_slice(), files_in(dir.path())), (&b"new"[..], 1));
        drop(prepare(&path, 4096).expect("prepared"));
        assert_eq!(files_in(dir.path()), 1, "nothing is left of one that was not used");
    }

    #[test]
    fn leftovers_of_one_file_are_removed_and_no_others() {
        let dir = tempfile::tempdir().expect("temp dir");
        for name in ["f", ".writing-f-1x", ".writing-g-1x"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        remove_leftovers_of(&dir.path().join("f"));
        assert!(!dir.path().join(".writing-f-1x").exists());
        assert_eq!(files_in(dir.path()), 2);
    }

    #[test]
    fn a_readable_file_is_replaced_too() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        for text in ["a", "b"] {
            replace_readable(&path, text.as_bytes()).expect("written");
        }
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!((std::fs::read(&path).expect("there"), mode & 0o777), (b"b".to_vec(), 0o644));
    }

    fn files_in(dir: &Path) -> usize {
        std::fs::read_dir(dir).expect("listed").count()
    }
}
