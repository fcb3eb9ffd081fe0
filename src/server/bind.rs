//! Gets the listening socket: from the service manager, or by binding it. Binding never takes over a socket that is
//! in use, nor a file that is not a socket.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps};
use rustix::process::Pid;
use tracing::debug;

use super::refuse::refuse;
use crate::{error, paths};

/// The listening socket. Dropping this removes the socket's file, if we bound it and it is still ours.
pub struct Bound {
    listener: Option<UnixListener>,
    /// The file to remove. The service manager's socket stays.
    remove_on_drop: Option<(PathBuf, Option<FileId>)>,
    /// Keeps a second daemon from binding between our check and our bind.
    lock: Option<File>,
}

/// Takes the socket that systemd or launchd passed, or else binds `socket`.
pub fn bind(socket: &Path) -> Result<Bound, Error> {
    if let Some(listener) = passed()? {
        return Ok(Bound { listener: Some(listener), remove_on_drop: None, lock: None });
    }
    for _ in 0..DEAD_HOLDER_RETRIES {
        match bind_path(socket) {
            // A daemon was killed while it started a program. The forked child still has a copy of the socket, until
            // its exec closes it in a moment.
            Err(Error::InUse { dead: true, .. }) => std::thread::sleep(DEAD_HOLDER_RETRY_DELAY),
            result => return result,
        }
    }
    bind_path(socket)
}

/// Binds `socket`, whether or not a service manager passed one before.
pub fn bind_path(socket: &Path) -> Result<Bound, Error> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    paths::private_dir(dir)?;
    bind_in(dir, socket, None)
}

/// Binds a socket that every user can connect to, in a folder that every user can enter: who is served is decided by
/// what the kernel says of each peer.
pub fn bind_for_guests(socket: &Path) -> Result<Bound, Error> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    paths::guest_dir(dir)?;
    bind_in(dir, socket, Some(0o666))
}

fn bind_in(dir: &Path, socket: &Path, mode: Option<u32>) -> Result<Bound, Error> {
    let lock = lock(dir, socket)?;
    remove_stale(socket)?;
    let listener = listen(socket, mode).map_err(|source| at(socket, source))?;
    let file = (socket.to_owned(), FileId::of(socket));
    Ok(Bound { listener: Some(listener), remove_on_drop: Some(file), lock })
}

/// Binds a socket beside its place and moves it there once it listens: nobody meets one that refuses connections for a
/// moment, and takes it for a dead one's.
fn listen(socket: &Path, mode: Option<u32>) -> io::Result<UnixListener> {
    let bind = |path: &Path| {
        let listener = UnixListener::bind(path)?;
        if let Some(mode) = mode {
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok(listener)
    };
    let beside = socket.with_file_name(".new");
    if paths::check_socket_length(&beside).is_err() {
        return bind(socket);
    }
    let _ = std::fs::remove_file(&beside);
    let listener = bind(&beside)?;
    std::fs::rename(&beside, socket)?;
    Ok(listener)
}

impl Bound {
    /// The listener, registered with the runtime. Must be called only once.
    pub fn take_listener(&mut self) -> Result<tokio::net::UnixListener, Error> {
        let listener = self.listener.take().expect("taken once");
        let registered =
            listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
        registered.map_err(Error::Passed)
    }

    /// There will be no daemon: tells those who wait at the service manager's socket why, so that it starts none for them.
    pub fn refuse(&self, why: &error::Error) {
        if let (Some(listener), None) = (&self.listener, &self.remove_on_drop)
            && let Err(error) = refuse(listener, why)
        {
            debug!(%error, "cannot answer those who wait");
        }
    }

    /// The path that the listener is bound to; that of a service manager's socket as the kernel knows it.
    pub fn path(&self) -> Option<PathBuf> {
        if let Some((socket, _)) = &self.remove_on_drop {
            return Some(socket.clone());
        }
        self.listener.as_ref()?.local_addr().ok()?.as_pathname().map(Path::to_path_buf)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some((socket, file)) = &self.remove_on_drop
            && FileId::of(socket) == *file
        {
            if let Some(lock) = &self.lock {
                // Tells callers that we have just left: another daemon may follow in a moment.
                let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
                let _ = rustix::fs::futimens(lock, &Timestamps { last_access: now, last_modification: now });
            }
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// Tells a file from a later one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub fn of(path: &Path) -> Option<Self> {
        let meta = path.symlink_metadata().ok()?;
        Some(Self { device: meta.dev(), inode: meta.ino() })
    }
}

/// systemd passes descriptors and counts them in `LISTEN_FDS` (sd_listen_fds(3)).
#[cfg(not(target_os = "macos"))]
fn passed() -> Result<Option<UnixListener>, Error> {
    let mut passed = listenfd::ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => passed.take_unix_listener(0).map_err(Error::Passed),
        several => Err(Error::Several(several)),
    }
}

/// launchd hands out descriptors by the socket's name in the property list.
#[cfg(target_os = "macos")]
fn passed() -> Result<Option<UnixListener>, Error> {
    match raunch::activate_socket(LAUNCHD_SOCKET) {
        Ok(passed) => match passed.as_slice() {
            [] => Ok(None),
            // On macOS opening /dev/fd/N duplicates the descriptor, even a socket's (fd(4)). That gives us one that we
            // own, with no unsafe code.
            [fd] => File::open(format!("/dev/fd/{fd}"))
                .map(|file| Some(UnixListener::from(std::os::fd::OwnedFd::from(file))))
                .map_err(Error::Passed),
            several => Err(Error::Several(several.len())),
        },
        // Not started by launchd, or the property list has no such socket.
        Err(_) => Ok(None),
    }
}

/// Allows one daemon per socket. The kernel releases the lock however its holder ends.
///
/// Some file systems have no locks. There only the check of the socket keeps two daemons apart, which is enough unless they
/// start within the same moment.
fn lock(dir: &Path, socket: &Path) -> Result<Option<File>, Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = dir.join(paths::LOCK);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(&path)
        .map_err(|source| at(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(in_use(socket)),
        Err(TryLockError::Error(error)) => {
            debug!(path = %path.display(), %error, "this file system has no locks");
            Ok(None)
        }
    }
}

/// Removes a socket that nobody listens on. Fails if it is in use, or not a socket.
fn remove_stale(socket: &Path) -> Result<(), Error> {
    let meta = match socket.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(at(socket, source)),
        Ok(meta) => meta,
    };
    if !meta.file_type().is_socket() {
        return Err(Error::NotASocket { path: socket.to_owned() });
    }
    match UnixStream::connect(socket) {
        Ok(_) => Err(in_use(socket)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(socket).map_err(|source| at(socket, source))
        }
        Err(source) => Err(at(socket, source)),
    }
}

fn in_use(socket: &Path) -> Error {
    let pid = holder(socket);
    // Nobody listening is no living holder either: the copy of the socket may be gone and that of the lock not yet.
    let dead = pid.is_none_or(|pid| rustix::process::test_kill_process(pid).is_err());
    let holder = match pid {
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim())
        }
        None => "another process".to_owned(),
    };
    Error::InUse { socket: socket.to_owned(), holder, dead }
}

/// The process that listens, according to the kernel.
#[cfg(target_os = "linux")]
fn holder(socket: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(socket).ok()?;
    Some(rustix::net::sockopt::socket_peercred(&stream).ok()?.pid)
}

#[cfg(not(target_os = "linux"))]
fn holder(_socket: &Path) -> Option<Pid> {
    None
}

fn at(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

/// Why the daemon has no socket to serve on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Place(#[from] error::Error),
    /// This is a second daemon; the first one goes on serving.
    #[error("{holder} already serves {}; stop it first, or set WANDB_CRED_SOCKET to another path", socket.display())]
    InUse {
        socket: PathBuf,
        holder: String,
        /// The holder has ended, and only a forked child still has a copy of its socket.
        dead: bool,
    },
    /// It may be somebody's file, so we never remove it.
    #[error("{} exists and is not a socket; move it away, or set WANDB_CRED_SOCKET to another path", path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot listen on {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the service manager passed something other than a listening Unix socket: {0}")]
    Passed(io::Error),
    #[error("the service manager passed {0} sockets instead of one")]
    Several(usize),
}

/// 5 s, for a forked child of a killed daemon to close its copies of the socket and the lock, on a busy machine too.
const DEAD_HOLDER_RETRIES: u32 = 500;
const DEAD_HOLDER_RETRY_DELAY: Duration = Duration::from_millis(10);

/// The key under `Sockets` in launchd/io.github.wandb-cred.plist.
#[cfg(target_os = "macos")]
const LAUNCHD_SOCKET: &str = "api";
