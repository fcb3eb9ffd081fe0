//! Files that hold a token or a secret, read as a daemon must read them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, FileFault, Kind, Stage};
use crate::private_file::{self, Holds};
use crate::{read_file, token};

/// [`read`], off the daemon's one thread.
pub(crate) async fn read_off_thread(path: &Path) -> Result<Zeroizing<String>, Error> {
    let owned = path.to_owned();
    read_file::off_thread(path, move || read(&owned)).await
}

/// A token that others may read, but not write.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let shown = path.display();
    let (file, meta) = read_file::open(path)?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o002 != 0 {
        let message = format!(
            "{shown} can be written by everybody (mode {mode:04o}), so its content cannot be trusted; run: chmod o-w {shown}"
        );
        return Err(unusable(path, FileFault::Loose { mode }, message));
    }
    let bytes = read_file::content(file, path, MAX_FILE)?;
    token::text::of_bytes(&bytes).ok_or_else(|| {
        let message = format!("{shown} is not text, so it does not hold a JWT");
        unusable(path, FileFault::Malformed, message).kind(Kind::Rejected)
    })
}

/// A secret, which only its owner (us, or root) may be able to read or write.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<String>, Error> {
    private_file::read(path, Holds::Secret, Stage::Identity, MAX_FILE).map(|content| content.text)
}

/// The error for a file that stays unusable until somebody changes it.
pub(crate) fn unusable(path: &Path, fault: FileFault, message: String) -> Error {
    Error::file(Stage::Identity, path, fault, message)
}

/// More than any JWT.
const MAX_FILE: u64 = 128 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::error::Reason;

    #[test]
    fn a_secret_file_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("secret");
        std::fs::write(&path, "planted\n").expect("written");
        let mode =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        mode(0o640);
        let error = read_private(&path).expect_err("open");
        assert_eq!(
            error.reason,
            Reason::File { path: path.clone(), fault: FileFault::Loose { mode: 0o640 } }
        );
        assert!(error.message.contains("chmod 600") && !error.message.contains("planted"), "{error}");
        mode(0o600);
        assert_eq!(read_private(&path).expect("closed").as_str(), "planted\n");
    }

    #[test]
    fn a_missing_file_may_come_and_a_folder_may_not() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("missing");
        let error = read(&path).expect_err("missing");
        assert_eq!(error.kind, Kind::Transient);
        assert_eq!(error.reason, Reason::File { path, fault: FileFault::Missing });
        let error = read(dir.path()).expect_err("a folder");
        assert_eq!(error.kind, Kind::Misconfigured);
        let fault = FileFault::NotARegularFile;
        assert_eq!(error.reason, Reason::File { path: dir.path().to_owned(), fault });
    }
}
