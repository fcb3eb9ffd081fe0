//! The audit log as a file: one JSON object a line, appended, of limited size.
//!
//! A full one becomes `PATH.1`, in place of the one before. Several daemons may append to the same file, and another
//! program may move it away: before each write, it is looked whether the file is still at its path.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
}

impl LogFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    /// Appends, and says how much: a disk may become full in the middle.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_moved() {
            self.file = None;
        }
        let file = self.open()?;
        let written = file.metadata()?.len();
        if written > 0 && written + bytes.len() as u64 > MAX_SIZE {
            std::fs::rename(&self.path, with_suffix(&self.path))?;
            self.file = None;
        }
        self.open()?.write(bytes)
    }

    fn is_moved(&self) -> bool {
        let Some(Ok(ours)) = self.file.as_ref().map(File::metadata) else { return true };
        !self
            .path
            .symlink_metadata()
            .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }

    pub(super) fn open(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Without NONBLOCK a FIFO would be waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(flags.bits() as i32);
    let file = options.open(path)?;
    let meta = file.metadata()?;
    let unusable = |why: String| Err(io::Error::other(why));
    if !meta.is_file() {
        return unusable("it is not a regular file".to_owned());
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return unusable(format!("it belongs to uid {}", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o7777;
        return unusable(format!(
            "others can read or write it (mode {mode:04o}); run: chmod 600 {}",
            path.display()
        ));
    }
    Ok(file)
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Some 80,000 records. With the one before, twice that.
const MAX_SIZE: u64 = if cfg!(test) { 4096 } else { 32 * 1024 * 1024 };

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_full_file_becomes_the_one_before_and_nothing_is_lost() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("audit");
        let mut log = LogFile::new(&path);
        for number in 0..60 {
            let line = format!("{number:0>99}\n");
            assert_eq!(log.append(line.as_bytes()).expect("written"), 100);
        }
        let read = |path: &Path| std::fs::read_to_string(path).expect("there");
        let all = read(&with_suffix(&path)) + &read(&path);
        assert_eq!(all.lines().count(), 60);
        assert!(path.metadata().expect("there").len() <= MAX_SIZE);
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("audit");
        let mut log = LogFile::new(&path);
        log.append(b"a\n").expect("written");
        std::fs::rename(&path, temp.path().join("elsewhere")).expect("moved");
        log.append(b"b\n").expect("written");
        assert_eq!(std::fs::read(&path).expect("there"), b"b\n");
    }

    #[test]
    fn what_is_not_ours_alone_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| temp.path().join(name);
        std::fs::write(at("loose"), "").expect("written");
        std::fs::set_permissions(at("loose"), std::fs::Permissions::from_mode(0o644)).expect("chmod");
        std::fs::write(at("target"), "").expect("written");
        symlink(at("target"), at("link")).expect("linked");
        for (name, words) in [("loose", "chmod 600"), ("link", ""), ("missing/audit", "")] {
            let error = LogFile::new(&at(name)).append(b"x\n").expect_err(name).to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
        assert!(LogFile::new(Path::new("/dev/null")).append(b"x\n").is_err(), "no regular file");
        assert_eq!(std::fs::read(at("target")).expect("there"), b"");
    }
}
