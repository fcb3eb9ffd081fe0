//! Tells when another program may have changed a folder. On Linux inotify says so; elsewhere nothing does, and each
//! renewal rewrites the files anyway.

use std::path::Path;

#[cfg(target_os = "linux")]
pub(super) struct Watcher {
    /// Best effort: instances are a limited resource (`fs.inotify.max_user_instances`, 128 on most systems), so a profile
    /// that nobody uses takes none.
    events: Option<tokio::net::unix::pipe::Receiver>,
    watching: bool,
}

#[cfg(target_os = "linux")]
impl Watcher {
    pub(super) fn new() -> Self {
        Self { events: None, watching: false }
    }

    /// Starts watching `dir`, unless it does so already or cannot.
    pub(super) fn watch(&mut self, dir: &Path) {
        use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
        if self.events.is_none() && dir.is_dir() {
            let instance = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
            self.events =
                instance.and_then(|fd| tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(fd).ok());
        }
        if let (Some(events), false) = (&self.events, self.watching) {
            let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
            self.watching = inotify::add_watch(events, dir, flags | WatchFlags::ONLYDIR).is_ok();
        }
    }

    /// Waits for a change; the caller finds out what changed. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let Some(events) = &self.events else { return std::future::pending().await };
        loop {
            if events.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut discarded = [0; 4096];
            match events.try_read(&mut discarded) {
                // The folder itself may be gone: what is made in its place is watched anew after the next write.
                Ok(_) => {
                    self.watching = false;
                    return;
                }
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
