//! Binds the socket again where it was taken away: a runtime folder is removed when its user logs out, and comes back
//! with the next login, while the daemon may live on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{debug, warn};

use crate::clock::Clock;
use crate::server::bind::{self, Bound};

/// Completes when the socket's file is gone, or another's, and we have bound a new one. `file` is what we bound first.
pub(super) async fn rebound(socket: PathBuf, file: Option<bind::FileId>, clock: Clock) -> Bound {
    let folder = socket.parent().unwrap_or(Path::new("/")).to_owned();
    let mut changes = Changes::new();
    while changes.watch(&folder) && bind::FileId::of(&socket) == file {
        changes.next().await;
    }
    warn!(socket = %socket.display(), "the socket was removed; it is bound again as soon as that is possible");
    loop {
        let above = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        changes.watch(above);
        for pause in PAUSES {
            // Who removes a folder needs a moment for it, and who makes one too.
            let _ = clock.sleep(pause).await;
            match bind::bind_path(&socket) {
                Ok(bound) => return bound,
                Err(error) => debug!(%error, "cannot bind the socket yet"),
            }
        }
        changes.next().await;
    }
}

/// Changes to a folder, as inotify tells them.
#[cfg(target_os = "linux")]
struct Changes(Option<tokio::net::unix::pipe::Receiver>);

#[cfg(target_os = "linux")]
impl Changes {
    fn new() -> Self {
        use rustix::fs::inotify::{CreateFlags, init};
        let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        Self(events.and_then(|fd| tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(fd).ok()))
    }

    /// Whether the folder is there. Without inotify it counts as there.
    fn watch(&self, folder: &Path) -> bool {
        use rustix::fs::inotify::{WatchFlags, add_watch};
        use rustix::io::Errno;
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB;
        match &self.0 {
            Some(events) => match add_watch(events, folder, flags | WatchFlags::ONLYDIR) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => false,
                Ok(_) | Err(_) => true,
            },
            None => true,
        }
    }

    async fn next(&mut self) {
        let Some(events) = &self.0 else { return std::future::pending().await };
        loop {
            if events.readable().await.is_err() {
                return std::future::pending().await;
            }
            match events.try_read(&mut [0; 4096]) {
                Ok(_) => return,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// Elsewhere nothing tells.
#[cfg(not(target_os = "linux"))]
struct Changes;

#[cfg(not(target_os = "linux"))]
impl Changes {
    fn new() -> Self {
        Self
    }

    fn watch(&self, _folder: &Path) -> bool {
        true
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}

/// A new runtime folder is made by root, and then mounted over and given away.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];
