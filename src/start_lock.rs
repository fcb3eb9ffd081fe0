//! The lock under which a daemon on demand is started, and under which it leaves.
//!
//! Whoever starts one holds it until the daemon answers; the daemon takes it before it goes. So at most one is started, and
//! nobody registers a job with one that is leaving. It is the kernel's lock on a file (flock(2)), and is free again however
//! its holder ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The lock is ours. Dropping this frees it.
#[derive(Debug)]
pub struct StartLock {
    /// `None` where the file system cannot lock: there the daemon's own check of its socket must do.
    file: Option<File>,
    path: PathBuf,
}

impl StartLock {
    /// Takes the lock if nobody has it; `None` if somebody does.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
                .open(path)?;
            match file.try_lock() {
                // Its last holder may have removed the file between our open and our lock: that lock protects nothing.
                Ok(()) if is_at(&file, path)? => {
                    return Ok(Some(Self { file: Some(file), path: path.to_owned() }));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(_)) => return Ok(Some(Self { file: None, path: path.to_owned() })),
            }
        }
    }

    /// Removes the file, and then frees the lock: nobody needs it until the next start.
    pub fn remove(self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match path.symlink_metadata() {
        Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_also_while_the_file_is_removed_and_made_again() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("lock");
        let take = || StartLock::try_take(&path).expect("no error");
        let first = take().expect("free");
        assert!(take().is_none());
        drop(first);
        let second = take().expect("free again");
        second.remove();
        assert!(!path.exists());

        let (holders, most) =
            (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut turns = 0;
                    while turns < 200 {
                        let Some(lock) = take() else { continue };
                        let now = holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                        most.fetch_max(now, std::sync::atomic::Ordering::SeqCst);
                        std::thread::yield_now();
                        holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        turns += 1;
                        if turns % 3 == 0 {
                            lock.remove();
                        }
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }
}
