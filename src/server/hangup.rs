//! Tells when the other end of a connection is gone: closed, not only done with sending (`printf | nc -U`).
//!
//! On Linux that is EPOLLHUP. tokio cannot wait for it alone, so we have a second epoll(7), which tokio watches: one
//! descriptor, however many callers wait.

#[cfg(target_os = "linux")]
pub(super) use linux::Hangups;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Hangups;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::io::{self, ErrorKind};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use rustix::event::epoll;
    use tokio::io::Interest;
    use tokio::net::UnixStream;
    use tokio::sync::oneshot;
    use tracing::warn;

    /// Cloning is cheap.
    #[derive(Clone)]
    pub(in crate::server) struct Hangups(Option<Arc<Shared>>);

    struct Shared {
        /// tokio's safe owner of "any descriptor that can be polled", with `try_io`.
        epoll: UnixStream,
        waiting: Mutex<Waiting>,
    }

    #[derive(Default)]
    struct Waiting {
        last: u64,
        by_number: HashMap<u64, oneshot::Sender<()>>,
    }

    impl Hangups {
        /// Must be called on a runtime. Where the system refuses, no hangup is ever noticed.
        pub(in crate::server) fn new() -> Self {
            let epoll = || {
                let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                let epoll = std::os::unix::net::UnixStream::from(epoll);
                epoll.set_nonblocking(true)?;
                UnixStream::from_std(epoll)
            };
            match epoll() {
                Ok(epoll) => {
                    let shared = Arc::new(Shared { epoll, waiting: Mutex::default() });
                    tokio::spawn(Arc::clone(&shared).run());
                    Self(Some(shared))
                }
                Err(error) => {
                    warn!(%error, "callers that hang up keep their places until their wait is over");
                    Self(None)
                }
            }
        }

        /// Waits until the other end of `connection` is closed. Cancel-safe.
        pub(in crate::server) async fn wait(&self, connection: &impl AsFd) {
            let hangup = self.0.as_ref().and_then(|shared| shared.watch(connection.as_fd()).ok());
            let Some((hangup, _watch)) = hangup else { return std::future::pending().await };
            let _ = hangup.await;
        }
    }

    impl Shared {
        fn watch<'a>(&'a self, connection: BorrowedFd<'a>) -> io::Result<(oneshot::Receiver<()>, Watch<'a>)> {
            let (tell, hangup) = oneshot::channel();
            let number = {
                let mut waiting = self.waiting();
                waiting.last += 1;
                let number = waiting.last;
                waiting.by_number.insert(number, tell);
                number
            };
            let watch = Watch { shared: self, connection, number };
            // EPOLLHUP and EPOLLERR are reported whether asked for or not.
            let flags = epoll::EventFlags::ONESHOT;
            epoll::add(&self.epoll, connection, epoll::EventData::new_u64(number), flags)?;
            Ok((hangup, watch))
        }

        async fn run(self: Arc<Self>) {
            while self.epoll.readable().await.is_ok() {
                // The error says that there is nothing more now.
                let _ = self.epoll.try_io(Interest::READABLE, || self.tell());
            }
        }

        fn tell(&self) -> io::Result<()> {
            let mut events = Vec::with_capacity(64);
            let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let buffer = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&self.epoll, buffer, Some(&at_once))? == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let mut waiting = self.waiting();
            for event in events {
                if let Some(tell) = waiting.by_number.remove(&event.data.u64()) {
                    let _ = tell.send(());
                }
            }
            Ok(())
        }

        fn waiting(&self) -> MutexGuard<'_, Waiting> {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Ends the watch when dropped.
    struct Watch<'a> {
        shared: &'a Shared,
        connection: BorrowedFd<'a>,
        number: u64,
    }

    impl Drop for Watch<'_> {
        fn drop(&mut self) {
            let _ = epoll::delete(&self.shared.epoll, self.connection);
            self.shared.waiting().by_number.remove(&self.number);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Elsewhere nothing tells a full close from a half one.
    #[derive(Clone)]
    pub(in crate::server) struct Hangups;

    impl Hangups {
        pub(in crate::server) fn new() -> Self {
            Self
        }

        pub(in crate::server) async fn wait(&self, _connection: &impl std::os::fd::AsFd) {
            std::future::pending().await
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn only_a_full_close_is_a_hangup() {
        let hangups = Hangups::new();
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let gone =
            async |wait| tokio::time::timeout(Duration::from_millis(wait), hangups.wait(&ours)).await.is_ok();
        assert!(!gone(20).await, "nothing happened");
        theirs.shutdown(Shutdown::Write).expect("shut");
        assert!(!gone(20).await, "a half close");
        drop(theirs);
        assert!(gone(10_000).await, "a full close");
    }

    #[tokio::test]
    async fn each_of_many_is_told_of_its_own() {
        let hangups = Hangups::new();
        let (kept, closed): (Vec<_>, Vec<_>) = (0..200).map(|_| UnixStream::pair().expect("a pair")).unzip();
        let (mut closed, wait) = (closed, Duration::from_secs(10));
        let waiting: Vec<_> = kept
            .into_iter()
            .map(|ours| {
                let hangups = hangups.clone();
                tokio::spawn(async move { tokio::time::timeout(wait, hangups.wait(&ours)).await.is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        let last = closed.pop().expect("one");
        drop(closed);
        let mut told = 0;
        for (number, waiting) in waiting.into_iter().enumerate() {
            if number == 199 {
                assert!(!waiting.is_finished(), "told of another's end");
                waiting.abort();
            } else {
                told += usize::from(waiting.await.expect("no panic"));
            }
        }
        drop(last);
        assert_eq!(told, 199);
    }
}
