//! What went through: for each job, and for its profile since the daemon started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that only grow.
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    replays: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub requests: u64,
    pub replays: u64,
    /// Bytes of bodies, to the server and back.
    pub sent: u64,
    pub received: u64,
}

impl Tally {
    pub(super) fn total(&self) -> Total {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Total {
            requests: read(&self.requests),
            replays: read(&self.replays),
            sent: read(&self.sent),
            received: read(&self.received),
        }
    }
}

/// A job's tally and its profile's.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) job: Arc<Tally>,
    pub(super) profile: Arc<Tally>,
}

impl Counts {
    pub(super) fn request(&self) {
        self.add(|tally| &tally.requests, 1);
    }

    pub(super) fn replay(&self) {
        self.add(|tally| &tally.replays, 1);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.add(|tally| &tally.sent, bytes as u64);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.add(|tally| &tally.received, bytes as u64);
    }

    fn add(&self, of: impl Fn(&Tally) -> &AtomicU64, more: u64) {
        for tally in [&self.job, &self.profile] {
            of(tally).fetch_add(more, Ordering::Relaxed);
        }
    }
}
