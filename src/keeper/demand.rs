//! Whether anything needs a profile's tokens: hot while SDK files are wanted, a job runs or somebody
//! called lately; cold otherwise, and then nothing is renewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Now;

#[derive(Debug, Default)]
pub struct Demand {
    /// Changes when a cold profile may have become hot. A loop that found it cold sleeps without a timer.
    rises: watch::Sender<()>,
    /// The configuration wants the tokens kept warm whether or not anybody asks.
    always: bool,
    jobs: AtomicUsize,
    /// Callers who wait for the next token.
    followers: AtomicUsize,
    /// Seconds since boot of the last call, plus one; 0 for never.
    last_use: AtomicU64,
}

impl Demand {
    pub fn new(always: bool) -> Self {
        Self { always, ..Self::default() }
    }

    pub fn is_hot(&self, now: Now) -> bool {
        let last = self.last_use.load(Ordering::Relaxed);
        let recent = last != 0 && now.boot.as_secs().saturating_sub(last - 1) < RECENT.as_secs();
        self.always || recent || self.jobs() > 0 || self.followers.load(Ordering::Relaxed) > 0
    }

    /// Somebody asked for a token.
    pub fn touch(&self, now: Now) {
        let hot = self.is_hot(now);
        self.last_use.store(now.boot.as_secs() + 1, Ordering::Relaxed);
        if !hot {
            self.rises.send_replace(());
        }
    }

    /// A job needs the tokens until the guard is dropped.
    pub fn hold(self: &Arc<Self>) -> JobGuard {
        self.add_to(&self.jobs);
        JobGuard(Arc::clone(self))
    }

    /// Somebody waits for the next token until the guard is dropped.
    pub fn follow(self: &Arc<Self>) -> FollowGuard {
        self.add_to(&self.followers);
        FollowGuard(Arc::clone(self))
    }

    fn add_to(&self, holders: &AtomicUsize) {
        if holders.fetch_add(1, Ordering::Relaxed) == 0 {
            self.rises.send_replace(());
        }
    }

    /// Follows when a cold profile may have become hot.
    pub(super) fn rises(&self) -> watch::Receiver<()> {
        self.rises.subscribe()
    }

    pub fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Relaxed)
    }
}

/// One running job's need.
#[derive(Debug)]
pub struct JobGuard(Arc<Demand>);

impl Drop for JobGuard {
    fn drop(&mut self) {
        self.0.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One waiting caller's need.
#[derive(Debug)]
pub struct FollowGuard(Arc<Demand>);

impl Drop for FollowGuard {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A caller keeps a profile warm for this long: about one life of a usual token.
const RECENT: Duration = Duration::from_secs(3600);
