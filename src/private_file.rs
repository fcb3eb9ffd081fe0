//! Files that hold a secret, or name a program to run: opened once, judged by that descriptor and by the folder it was
//! opened in, and read from the same descriptor. So nobody can put another file there between the check and the read.
//!
//! The configuration, client secrets and private keys, and the AWS files are read here.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, statat};
use zeroize::Zeroizing;

use crate::error::{Error, FileFault, Stage};
use crate::read_file;

/// What a file is, which decides who else may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A secret: nobody else may read or write it.
    Secret,
    /// Names of programs that will be run: nobody else may write it.
    Programs,
}

/// A file's content, and what it was when it was opened.
pub struct Content {
    pub text: Zeroizing<String>,
    pub mode: u32,
}

/// Reads at most `limit` bytes of text. Never waits for a FIFO or a device; a dead mount can still block.
///
/// # Errors
///
/// [`Reason::File`](crate::error::Reason::File), of `stage`, with the fault of the file or its folder.
pub fn read(path: &Path, holds: Holds, stage: Stage, limit: u64) -> Result<Content, Error> {
    let failed = |error: io::Error| {
        Error::file(stage, path, (&error).into(), format!("cannot read {}: {error}", path.display()))
    };
    let file = open(path, holds, stage)?;
    let meta = file.metadata().map_err(failed)?;
    let shown = path.display();
    let unusable = |fault, message: String| Err(Error::file(stage, path, fault, message));
    if !meta.is_file() {
        return Err(read_file::irregular(path, meta.file_type()).at(stage));
    }
    let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
    if !is_trusted(owner) {
        let whom = format!("{shown} belongs to uid {owner}, not to you or root");
        return unusable(FileFault::Foreign { owner }, format!("{whom}; {}", holds.so("make it yours")));
    }
    match holds {
        Holds::Secret if mode & 0o077 != 0 => {
            let message = format!(
                "{shown} holds a secret and has mode {mode:04o}, open to others; run: chmod 600 {shown}"
            );
            return unusable(FileFault::Loose { mode }, message);
        }
        Holds::Programs if mode & 0o022 != 0 => {
            let message = format!(
                "{shown} can be written by others (mode {mode:04o}), and it names programs to run; run: chmod go-w {shown}"
            );
            return unusable(FileFault::Loose { mode }, message);
        }
        Holds::Secret | Holds::Programs => {}
    }
    let content = read_file::content(file, path, limit).and_then(|bytes| read_file::text(bytes, path));
    Ok(Content { text: content.map_err(|error| error.at(stage))?, mode })
}

/// Opens the file in a folder that was looked at, by that folder's descriptor. A symlink is followed by its own folder's
/// rules.
fn open(path: &Path, holds: Holds, stage: Stage) -> Result<File, Error> {
    let failed = |at: &Path, error: io::Error| {
        Error::file(stage, path, (&error).into(), format!("cannot read {}: {error}", at.display()))
    };
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        let name =
            place.file_name().ok_or_else(|| failed(&place, io::ErrorKind::IsADirectory.into()))?.to_owned();
        let folder = match place.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let dir =
            openat(CWD, &folder, FOLDER, Mode::empty()).map_err(|errno| failed(&place, errno.into()))?;
        let dir = File::from(dir);
        check_folder(&folder, &dir, holds, path, stage)?;
        // Without NONBLOCK, a FIFO would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(&dir, &name, flags, Mode::empty()) {
            Ok(file) => return Ok(file.into()),
            Err(rustix::io::Errno::LOOP) => {
                let link = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| failed(&place, errno.into()))?;
                if !is_trusted(link.st_uid) {
                    let message = format!(
                        "{} is a symlink of uid {}, not yours or root's",
                        place.display(),
                        link.st_uid
                    );
                    return Err(Error::file(stage, path, FileFault::Foreign { owner: link.st_uid }, message));
                }
                let target =
                    readlinkat(&dir, &name, Vec::new()).map_err(|errno| failed(&place, errno.into()))?;
                place = folder.join(std::ffi::OsString::from_vec(target.into_bytes()));
            }
            Err(errno) => return Err(failed(&place, errno.into())),
        }
    }
    Err(failed(path, rustix::io::Errno::LOOP.into()))
}

/// Whoever can write to the folder can put another file in the place of this one.
fn check_folder(folder: &Path, dir: &File, holds: Holds, path: &Path, stage: Stage) -> Result<(), Error> {
    let meta = dir.metadata().map_err(|error| Error::io(stage, folder, &error))?;
    let (owner, mode, shown) = (meta.uid(), meta.mode() & 0o7777, folder.display());
    if !is_trusted(owner) {
        let message = format!(
            "{} is in {shown}, which belongs to uid {owner}, not to you or root; {}",
            path.display(),
            holds.so("move it to a folder of yours")
        );
        return Err(Error::file(stage, path, FileFault::Foreign { owner }, message));
    }
    // In a sticky folder nobody can remove or rename what belongs to us or root.
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        let message = format!(
            "{} can be replaced by others, since its folder has mode {mode:04o}; {}",
            path.display(),
            holds.so(&format!("run: chmod go-w {shown}"))
        );
        return Err(Error::file(stage, path, FileFault::Loose { mode }, message));
    }
    Ok(())
}

impl Holds {
    /// Why it matters, and what to do.
    fn so(self, remedy: &str) -> String {
        match self {
            Self::Secret => format!("it holds a secret, so {remedy}"),
            Self::Programs => format!("it names programs to run, so {remedy}"),
        }
    }
}

fn is_trusted(owner: u32) -> bool {
    owner == rustix::process::geteuid().as_raw() || owner == 0
}

/// A folder need not be readable to open what is in it.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// As many as Linux follows is 40; what people set up has two or three.
const MAX_LINKS: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("temp dir"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.path(name);
            std::fs::write(&path, "planted\n").expect("written");
            chmod(&path, mode);
            path
        }
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn fault(path: &Path, holds: Holds) -> Option<FileFault> {
        let error = read(path, holds, Stage::Identity, 1024).err()?;
        assert!(!error.message.contains("planted"), "{error}");
        Some(error.file_fault().expect("a file's fault").clone())
    }

    #[test]
    fn a_secret_is_for_its_owner_only_and_programs_are_written_by_nobody_else() {
        let place = Place::new();
        for (mode, secret, programs) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, false, true),
            (0o604, false, true),
            (0o620, false, false),
            (0o602, false, false),
        ] {
            let path = place.write("file", mode);
            for (holds, fits) in [(Holds::Secret, secret), (Holds::Programs, programs)] {
                let wanted = (!fits).then_some(FileFault::Loose { mode });
                assert_eq!(fault(&path, holds), wanted, "{mode:o} {holds:?}");
            }
        }
    }

    #[test]
    fn a_folder_in_which_others_can_swap_the_file_is_refused() {
        let place = Place::new();
        let path = place.write("file", 0o600);
        for (mode, fits) in
            [(0o700, true), (0o755, true), (0o770, false), (0o707, false), (0o777, false), (0o1777, true)]
        {
            chmod(place.0.path(), mode);
            for holds in [Holds::Secret, Holds::Programs] {
                assert_eq!(fault(&path, holds), (!fits).then_some(FileFault::Loose { mode }), "{mode:o}");
            }
        }
    }

    #[test]
    fn a_symlink_is_followed_by_the_rules_of_each_folder() {
        let (links, files) = (Place::new(), Place::new());
        let file = files.write("file", 0o600);
        let link = links.path("link");
        symlink(&file, &link).expect("symlink");
        symlink("link", links.path("relative")).expect("symlink");
        assert_eq!(fault(&links.path("relative"), Holds::Secret), None);
        chmod(files.0.path(), 0o777);
        assert_eq!(fault(&link, Holds::Secret), Some(FileFault::Loose { mode: 0o777 }), "the file's folder");
        chmod(files.0.path(), 0o700);
        chmod(links.0.path(), 0o777);
        assert_eq!(fault(&link, Holds::Secret), Some(FileFault::Loose { mode: 0o777 }), "the link's folder");
        chmod(links.0.path(), 0o700);
        symlink(links.path("b"), links.path("a")).expect("symlink");
        symlink(links.path("a"), links.path("b")).expect("symlink");
        assert!(fault(&links.path("a"), Holds::Secret).is_some(), "a circle");
    }

    #[test]
    fn what_is_no_regular_file_is_said_at_once() {
        let place = Place::new();
        let fifo = place.path("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(made.success());
        for path in [fifo.as_path(), Path::new("/dev/null"), place.0.path()] {
            assert_eq!(fault(path, Holds::Programs), Some(FileFault::NotARegularFile), "{}", path.display());
        }
        assert_eq!(fault(&place.path("missing"), Holds::Secret), Some(FileFault::Missing));
        assert_eq!(fault(&place.path("missing/file"), Holds::Secret), Some(FileFault::Missing));
        let large = place.write("large", 0o600);
        let error = read(&large, Holds::Secret, Stage::Identity, 4).err().expect("too large");
        assert_eq!(error.file_fault(), Some(&FileFault::TooLarge));
    }

    #[test]
    fn the_content_comes_with_its_mode() {
        let path = Place::new();
        let path = (path.write("file", 0o640), path);
        let content = read(&path.0, Holds::Programs, Stage::Configuration, 1024).expect("readable");
        assert_eq!((content.text.as_str(), content.mode), ("planted\n", 0o640));
    }
}
