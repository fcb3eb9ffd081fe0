//! One holder per stored session, among all processes of this user.
//!
//! A refresh token that rotates can be redeemed once, and several daemons may share it: a service and the private daemons
//! of `exec`. Whoever redeems it holds the session's lock from before it reads the store until after it has written to
//! it. The lock is the kernel's (flock(2)), so it is free again however its holder ends. The file holds the holder's
//! process number, for messages.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Key, failed};
use crate::blocking;
use crate::clock::Clock;
use crate::error::{Error, Kind, Reason, Stage};
use crate::paths;

/// Where the lock files are.
#[derive(Clone, Debug)]
pub(super) struct Locks {
    /// The first is used, unless its file system cannot lock.
    folders: Vec<PathBuf>,
    warned: Arc<AtomicBool>,
}

/// The lock on one session. Dropping this frees it.
#[derive(Debug)]
pub struct Lock {
    /// `None` where no file system can lock: then only this process' own order protects the session.
    file: Option<File>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = file.set_len(0);
        }
    }
}

/// Who has the lock, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holder {
    pub pid: Option<u32>,
    /// If it is not this machine: home folders can be shared.
    pub host: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { pid: None, .. } => f.write_str("another process"),
            Self { pid: Some(pid), host: None } => write!(f, "process {pid}"),
            Self { pid: Some(pid), host: Some(host) } => write!(f, "process {pid} on {host}"),
        }
    }
}

impl Locks {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, warned: Arc::default() }
    }

    /// Waits for the lock, but not without end: a holder that hangs is an error that names it.
    pub(super) async fn acquire(&self, key: &Key, clock: &Clock) -> Result<Lock, Error> {
        let deadline = clock.now().boot + LOCK_TIMEOUT;
        loop {
            let (this, name) = (self.clone(), format!("{}.lock", key.short()));
            let attempt = blocking::run(move || this.attempt(&name)).await;
            match attempt.map_err(|error| failed(format!("cannot take the session's lock now: {error}")))? {
                Ok(lock) => return Ok(lock),
                Err(holder) if clock.now().boot >= deadline => {
                    return Err(held(&key.profile, &holder));
                }
                // At random, so that those who wait do not come all at once.
                Err(_) => drop(clock.sleep(Duration::from_millis(fastrand::u64(20..80))).await),
            }
        }
    }

    /// The lock, or who has it.
    fn attempt(&self, name: &str) -> Result<Lock, Holder> {
        let mut failed = None;
        for folder in &self.folders {
            let path = folder.join(name);
            match open(folder, &path).and_then(|file| lock(file, &path)) {
                Ok(taken) => return taken,
                Err(error) => failed = failed.or(Some((path, error))),
            }
        }
        if let Some((path, error)) = failed
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %error,
                "cannot lock {}; do not run several daemons with this session at a time",
                path.display()
            );
        }
        Ok(Lock { file: None })
    }
}

/// The holder does not come to an end.
fn held(profile: &str, holder: &Holder) -> Error {
    let seconds = LOCK_TIMEOUT.as_secs();
    let message = format!(
        "{holder} holds the session of profile {profile}, and did not let go of it within {seconds} s; if it hangs, end it"
    );
    Error::new(Stage::SignIn, Kind::Transient, Reason::SessionHeld { pid: holder.pid }, message)
}

fn open(folder: &Path, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Nothing is followed, and nothing that is not a regular file can block.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.read(true).mode(0o600).custom_flags(flags.bits() as i32);
    paths::private_dir(folder).map_err(io::Error::other)?;
    // A file system that is read-only by now can still lock a file that is there.
    match options.clone().write(true).create(true).truncate(false).open(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => options.open(path).map_err(|_| error),
        opened => opened,
    }
}

fn lock(mut file: File, path: &Path) -> io::Result<Result<Lock, Holder>> {
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => return Ok(Err(holder(path))),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            // ENOSYS, ENOLCK and the like: this file system does not lock.
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    // For messages only: on a full disk there is none.
    let _ = file
        .set_len(0)
        .and_then(|()| file.write_all(format!("{} {}\n", std::process::id(), host()).as_bytes()));
    Ok(Ok(Lock { file: Some(file) }))
}

fn holder(path: &Path) -> Holder {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(300).read_to_string(&mut text));
    if read.is_err() {
        return Holder::default();
    }
    let mut words = text.split_whitespace();
    let pid = words.next().and_then(|pid| pid.parse().ok());
    let host = words.next().filter(|named| *named != host()).map(str::to_owned);
    Holder { pid, host }
}

/// The machine's name, or nothing where the kernel does not tell it this way.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Two requests to a provider that is slow, and shorter than a caller waits for a token.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key { profile: "work".into(), issuer: "https://idp".into(), client_id: "cli".into() }
    }

    fn locks(dir: &Path) -> Locks {
        Locks::new(vec![dir.join("locks")])
    }

    #[tokio::test]
    async fn one_holds_the_lock_and_the_next_gets_it_when_it_is_dropped() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (locks, clock, key) = (locks(temp.path()), Clock::system(), key());
        let first = locks.acquire(&key, &clock).await.expect("free");
        let held = locks.attempt(&format!("{}.lock", key.short()));
        assert_eq!(held.expect_err("held"), Holder { pid: Some(std::process::id()), host: None });
        let (next, ()) = tokio::join!(locks.acquire(&key, &clock), async { drop(first) });
        next.expect("free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_hangs_is_named_and_not_waited_for_without_end() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (locks, clock) = (locks(temp.path()), Clock::paused());
        let _hangs = locks.acquire(&key(), &clock).await.expect("free");
        let error = locks.acquire(&key(), &clock).await.expect_err("held").to_string();
        let pid = std::process::id();
        assert!(error.starts_with(&format!("process {pid} holds the session of profile work")), "{error}");
        assert!(clock.now().boot < Duration::from_secs(60), "{:?}", clock.now().boot);
    }

    #[tokio::test]
    async fn another_session_has_a_lock_of_its_own() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (locks, clock) = (locks(temp.path()), Clock::system());
        let _one = locks.acquire(&key(), &clock).await.expect("free");
        locks.attempt("other.lock").expect("free");
    }

    #[tokio::test]
    async fn a_lock_file_is_private_and_names_its_holder() {
        use std::os::unix::fs::MetadataExt as _;
        let temp = tempfile::tempdir().expect("temp dir");
        let lock = locks(temp.path()).acquire(&key(), &Clock::system()).await.expect("free");
        let path = temp.path().join("locks").join(format!("{}.lock", key().short()));
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        assert_eq!(temp.path().join("locks").metadata().expect("there").mode() & 0o777, 0o700);
        let text = || std::fs::read_to_string(&path).expect("there");
        assert!(text().starts_with(&format!("{} ", std::process::id())), "{}", text());
        drop(lock);
        assert_eq!(text(), "");
    }

    #[test]
    fn a_holder_on_another_machine_is_named_with_it() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("l");
        std::fs::write(&path, "77 elsewhere.example\n").expect("written");
        assert_eq!(holder(&path).to_string(), "process 77 on elsewhere.example");
        std::fs::write(&path, "").expect("written");
        assert_eq!(holder(&path).to_string(), "another process");
    }

    #[tokio::test]
    async fn where_the_first_folder_cannot_lock_the_second_does() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join("file"), "").expect("written");
        let locks = Locks::new(vec![temp.path().join("file/locks"), temp.path().join("locks")]);
        let _held = locks.acquire(&key(), &Clock::system()).await.expect("free");
        assert!(locks.attempt(&format!("{}.lock", key().short())).is_err(), "held");
    }

    #[tokio::test]
    async fn where_nothing_can_lock_the_session_is_used_all_the_same() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join("file"), "").expect("written");
        let locks = Locks::new(vec![temp.path().join("file/locks")]);
        let clock = Clock::system();
        let one = locks.acquire(&key(), &clock).await.expect("not locked");
        let two = locks.acquire(&key(), &clock).await.expect("not locked");
        assert!(one.file.is_none() && two.file.is_none());
    }
}
