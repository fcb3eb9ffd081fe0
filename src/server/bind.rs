//! Getting the socket: from the service manager, or by binding it ourselves without ever taking one that is
//! in use or is no socket.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

use crate::{error, paths};

/// The listening socket, and what must be done with its file when the daemon stops.
pub struct Bound {
    listener: Option<UnixListener>,
    /// Removed at the end: we made it. A socket of the service manager's stays.
    ours: Option<PathBuf>,
    /// Keeps a second daemon from binding between our look and our bind.
    _lock: Option<std::fs::File>,
}

/// Takes the socket that systemd or launchd passed, else binds `socket`.
pub fn bind(socket: &Path) -> Result<Bound, Error> {
    if let Some(listener) = passed()? {
        return Ok(Bound { listener: Some(listener), ours: None, _lock: None });
    }
    for _ in 0..LAST_BREATHS {
        match bind_own(socket) {
            // A daemon that was killed while it started a program: the program's copy of our descriptors goes
            // with its exec, in a moment.
            Err(Error::InUse { dead: true, .. }) => std::thread::sleep(BREATH),
            outcome => return outcome,
        }
    }
    bind_own(socket)
}

fn bind_own(socket: &Path) -> Result<Bound, Error> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    paths::private_dir(dir)?;
    let lock = lock(dir, socket)?;
    clear(socket)?;
    let listener = UnixListener::bind(socket).map_err(|source| at(socket, source))?;
    Ok(Bound { listener: Some(listener), ours: Some(socket.to_owned()), _lock: Some(lock) })
}

impl Bound {
    /// The listener, for the runtime. To be called once.
    pub fn take_listener(&mut self) -> Result<tokio::net::UnixListener, Error> {
        let listener = self.listener.take().expect("taken once");
        let made = listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
        made.map_err(Error::Passed)
    }

    /// The path that the service manager bound, if it did.
    pub fn path(&self) -> Option<PathBuf> {
        self.listener.as_ref()?.local_addr().ok()?.as_pathname().map(Path::to_path_buf)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(socket) = &self.ours {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// systemd's way: descriptors named by `LISTEN_FDS` (sd_listen_fds(3)).
#[cfg(not(target_os = "macos"))]
fn passed() -> Result<Option<UnixListener>, Error> {
    let mut passed = listenfd::ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => passed.take_unix_listener(0).map_err(Error::Passed),
        several => Err(Error::Several(several)),
    }
}

/// launchd's way: descriptors asked for by the socket's name in the property list.
#[cfg(target_os = "macos")]
fn passed() -> Result<Option<UnixListener>, Error> {
    match raunch::activate_socket(LAUNCHD_SOCKET) {
        Ok(passed) => match passed.as_slice() {
            [] => Ok(None),
            // On macOS opening /dev/fd/N duplicates the descriptor, sockets too (fd(4)): so we get to own one
            // without trusting a bare number.
            [fd] => std::fs::File::open(format!("/dev/fd/{fd}"))
                .map(|file| Some(UnixListener::from(std::os::fd::OwnedFd::from(file))))
                .map_err(Error::Passed),
            several => Err(Error::Several(several.len())),
        },
        // Started by hand, or by a property list without the socket.
        Err(_) => Ok(None),
    }
}

/// One daemon per socket: the lock lives as long as its holder, however that ends.
fn lock(dir: &Path, socket: &Path) -> Result<std::fs::File, Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = dir.join(LOCK);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(&path)
        .map_err(|source| at(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(in_use(socket)),
    }
}

/// Removes a socket that nobody listens on; refuses one in use and any file that is no socket.
fn clear(socket: &Path) -> Result<(), Error> {
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
    let dead = pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_err());
    let holder = match pid {
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim())
        }
        None => "another process".to_owned(),
    };
    Error::InUse { socket: socket.to_owned(), holder, dead }
}

/// Who listens; the kernel knows.
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
    /// A second daemon: the first goes on.
    #[error("{holder} already serves {}; stop it first, or set WANDB_CRED_SOCKET to another path", socket.display())]
    InUse {
        socket: PathBuf,
        holder: String,
        /// The holder has ended; only a copy of its socket is left, in a child about to become another program.
        dead: bool,
    },
    /// Never removed: it is somebody's file.
    #[error("{} exists and is not a socket; move it away, or set WANDB_CRED_SOCKET to another path", path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot listen on {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the service manager passed something that is no listening Unix socket: {0}")]
    Passed(io::Error),
    #[error("the service manager passed {0} sockets, one is expected")]
    Several(usize),
}

/// For the last of a killed daemon to go: half a second.
const LAST_BREATHS: u32 = 50;
const BREATH: Duration = Duration::from_millis(10);

const LOCK: &str = ".lock";

/// The key under `Sockets` in launchd/io.github.wandb-cred.plist.
#[cfg(target_os = "macos")]
const LAUNCHD_SOCKET: &str = "api";
