//! Tells when somebody touches a folder. On Linux the kernel says so; elsewhere each write of our own is the
//! only occasion to look.

use std::path::Path;

#[cfg(target_os = "linux")]
pub(super) struct Watcher {
    /// Best effort: instances are a limited resource (`fs.inotify.max_user_instances`).
    events: Option<tokio::net::unix::pipe::Receiver>,
    watches: bool,
}

#[cfg(target_os = "linux")]
impl Watcher {
    pub(super) fn new() -> Self {
        use rustix::fs::inotify::{self, CreateFlags};
        let instance = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        let events =
            instance.and_then(|fd| tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(fd).ok());
        Self { events, watches: false }
    }

    /// Begins to watch `dir`, if that is possible and not so already.
    pub(super) fn watch(&mut self, dir: &Path) {
        use rustix::fs::inotify::{self, WatchFlags};
        if let (Some(events), false) = (&self.events, self.watches) {
            let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
            self.watches = inotify::add_watch(events, dir, flags | WatchFlags::ONLYDIR).is_ok();
        }
    }

    /// Resolves after a change. What changed is for the caller to see; cancel-safe.
    pub(super) async fn changed(&mut self) {
        let Some(events) = &self.events else { return std::future::pending().await };
        loop {
            if events.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut drained = [0; 4096];
            match events.try_read(&mut drained) {
                Ok(_) => return,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct Watcher;

#[cfg(not(target_os = "linux"))]
impl Watcher {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn watch(&mut self, _dir: &Path) {}

    pub(super) async fn changed(&mut self) {
        std::future::pending().await
    }
}
