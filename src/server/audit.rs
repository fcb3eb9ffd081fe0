//! Who got a token: a record of each that was handed out, where the configuration asks for it.
//!
//! Nothing of it is done on the daemon's one thread. One thread looks at callers: it must be quick, since a caller may end
//! as soon as it has its answer, so the answer waits for the look (for [`LOOK_TIMEOUT`] at most). Another one writes: that
//! may take as long as it takes. Records wait for it in a queue; when that is full, they are lost, and counted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::time::Duration;

use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::warn;

use super::{Caller, Peer};
use crate::backoff::Thinned;
use crate::clock::Clock;
use crate::process::{Facts, Process};
use crate::profile::Profile;
use crate::proxy::{Use, Used};
use crate::sdk_files::Files;
use crate::token::TokenHash;
use record::Record;

mod file;
mod journal;
mod record;
mod writer;

/// `audit-log`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Destination {
    Journal,
    File(PathBuf),
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "journal" if cfg!(target_os = "linux") => Ok(Self::Journal),
            "journal" => Err("audit-log: there is no journal on this system; name a file".to_owned()),
            path if path.starts_with('/') => Ok(Self::File(path.into())),
            _ => Err("audit-log is the absolute path of a file, or \"journal\"".to_owned()),
        }
    }
}

/// What a route has handed out, as it says itself.
#[derive(Clone, Debug)]
pub(super) struct Handed {
    pub(super) profile: Arc<str>,
    /// `None`: it will come.
    pub(super) token: Option<TokenHash>,
    /// The process that it is for, if that is not the caller.
    pub(super) process: Option<u32>,
}

impl Handed {
    /// To whoever asked.
    pub(super) fn token(profile: &Arc<str>, token: TokenHash) -> Self {
        Self { profile: Arc::clone(profile), token: Some(token), process: None }
    }
}

/// The log of the moment, if there is one.
pub(super) struct Audit {
    log: RwLock<Option<Arc<Log>>>,
    counts: Arc<Counts>,
    /// Names tokens: who has the log alone cannot find out whether it names one that he knows.
    salt: [u8; 32],
    clock: Clock,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    pub(super) lost: AtomicU64,
    queued: AtomicUsize,
}

struct Log {
    destination: Destination,
    looks: mpsc::Sender<(u32, oneshot::Sender<Facts>)>,
    records: mpsc::Sender<Record>,
    /// Ends when all is written.
    done: std::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

impl Audit {
    pub(super) fn new(clock: Clock) -> Self {
        let mut salt = [0; 32];
        OsRng.fill_bytes(&mut salt);
        Self { log: RwLock::default(), counts: Arc::default(), salt, clock }
    }

    /// Follows the configuration. The tasks, which are to be kept, record what goes into the SDK files.
    pub(super) fn configure(
        self: &Arc<Self>,
        wanted: Option<&Destination>,
        profiles: impl Iterator<Item = (Arc<Profile>, Arc<Files>)>,
    ) -> JoinSet<()> {
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        if log.as_ref().map(|log| &log.destination) != wanted {
            *log = wanted.and_then(|destination| self.open(destination.clone())).map(Arc::new);
        }
        let mut tasks = JoinSet::new();
        if log.is_none() {
            return tasks;
        }
        for (profile, files) in profiles {
            let audit = Arc::clone(self);
            tasks.spawn(async move {
                let mut last = files.delivered();
                loop {
                    let token = files.next_delivery(last).await;
                    last = Some(token);
                    let jobs = Some(profile.demand.jobs());
                    let handed = Handed { profile: Arc::clone(&profile.name), token: last, process: None };
                    if let Some(log) = audit.log() {
                        audit.send(&log, Record { jobs, ..audit.record("sdk-files", &handed) });
                    }
                }
            });
        }
        tasks
    }

    fn open(&self, destination: Destination) -> Option<Log> {
        let (looks, requests) = mpsc::channel();
        let (records, queue) = mpsc::channel();
        let (tell, done) = oneshot::channel();
        let (counts, clock, to) = (Arc::clone(&self.counts), self.clock.clone(), destination.clone());
        let write = move || {
            writer::run(&queue, &to, &counts, &clock);
            let _ = tell.send(());
        };
        let threads =
            thread("audit-look", move || look(&requests)).and_then(|()| thread("audit-write", write));
        if let Err(error) = threads {
            warn!(%error, "the system gives no thread for the audit log, so there is none");
            return None;
        }
        Some(Log { destination, looks, records, done: std::sync::Mutex::new(Some(done)) })
    }

    fn log(&self) -> Option<Arc<Log>> {
        self.log.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_on(&self) -> bool {
        self.log.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Records that `caller` is about to get what `route` has handed out.
    pub(super) async fn note(&self, caller: &Caller, route: &'static str, handed: Handed) {
        let Some(log) = self.log() else { return };
        let Peer { pid, uid, gid, .. } = caller.peer;
        let facts = match pid {
            Some(pid) => Some(Arc::clone(caller.facts.get_or_init(|| log.look(pid)).await)),
            None => None,
        };
        self.send(&log, Record { pid, uid, gid, facts, ..self.record(route, &handed) });
    }

    /// Records what a job makes of its key: each token that it comes to use, and what went through when it is over. A record
    /// for each request would say no more, and there may be thousands in a second.
    pub(super) fn note_proxied(self: &Arc<Self>, used: Use) {
        let Some(log) = self.log() else { return };
        let (token, total) = match used.what {
            Used::Token(token) => (Some(token), None),
            Used::Over(total) => (None, Some(total)),
        };
        let handed = Handed { profile: used.profile, token, process: None };
        let pid = used.process.map(|process| process.pid);
        let record = Record { pid, total, ..self.record(PROXY, &handed) };
        let (Some(pid), None) = (pid, total) else { return self.send(&log, record) };
        let audit = Arc::clone(self);
        tokio::spawn(async move {
            let facts = log.look(pid).await;
            audit.send(&log, Record { uid: facts.uid, facts: Some(facts), ..record });
        });
    }

    fn record(&self, route: &'static str, handed: &Handed) -> Record {
        Record {
            time: self.clock.now().wall,
            route,
            profile: Arc::clone(&handed.profile),
            process: handed.process,
            token: handed.token.map(|token| self.name(token)),
            ..Record::default()
        }
    }

    /// The same for the same token until the daemon ends, and no other way to find out which one.
    fn name(&self, token: TokenHash) -> String {
        let digest = Sha256::new_with_prefix(self.salt).chain_update(token.to_string()).finalize();
        format!("{digest:x}")[..32].to_owned()
    }

    fn send(&self, log: &Log, record: Record) {
        let queued = self.counts.queued.fetch_add(1, Ordering::Relaxed);
        if queued < MAX_QUEUE && log.records.send(record).is_ok() {
            return;
        }
        self.counts.queued.fetch_sub(1, Ordering::Relaxed);
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        if let Some(count) = LOST.count() {
            warn!(count, "the audit log cannot be written as fast as tokens are asked for; records are lost");
        }
    }

    /// Ends the log. Waits for the records that are queued, but not for a disk that does not answer.
    pub(super) async fn close(&self) {
        let log = self.log.write().unwrap_or_else(PoisonError::into_inner).take();
        let done = log.and_then(|log| log.done.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(done) = done {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, done).await;
        }
    }
}

impl Log {
    async fn look(&self, pid: u32) -> Arc<Facts> {
        let (tell, facts) = oneshot::channel();
        let _ = self.looks.send((pid, tell));
        match tokio::time::timeout(LOOK_TIMEOUT, facts).await {
            Ok(Ok(facts)) => Arc::new(facts),
            _ => Arc::default(),
        }
    }
}

fn look(requests: &mpsc::Receiver<(u32, oneshot::Sender<Facts>)>) {
    for (pid, tell) in requests {
        // Who waits no longer is not looked at: the next one is waiting.
        if !tell.is_closed() {
            let _ = tell.send(Process::find(pid).map(Facts::of).unwrap_or_default());
        }
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work).map(drop)
}

/// In place of a route.
const PROXY: &str = "proxy";

static LOST: Thinned = Thinned::new();

/// Reading what `/proc` says takes a tenth of a millisecond, except where a process's memory is on a dead mount.
const LOOK_TIMEOUT: Duration = Duration::from_millis(50);

/// A few megabytes, and more than a whole node asks for in the time that a disk is busy.
const MAX_QUEUE: usize = 8192;

const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

const STACK: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_name_under_one_salt() {
        let (one, other) = (Audit::new(Clock::system()), Audit::new(Clock::system()));
        let (a, b) = (TokenHash::of("a"), TokenHash::of("b"));
        assert_eq!((one.name(a), one.name(a).len()), (one.name(a), 32));
        assert_ne!(one.name(a), one.name(b));
        assert_ne!(one.name(a), other.name(a));
        assert!(!a.to_string().contains(&one.name(a)));
    }

    #[test]
    fn a_destination_is_a_path_or_the_journal() {
        let of = |text: &str| Destination::try_from(text.to_owned());
        assert_eq!(of("/a/b"), Ok(Destination::File("/a/b".into())));
        assert_eq!(of("journal").is_ok(), cfg!(target_os = "linux"));
        assert!(of("audit.log").is_err() && of("").is_err());
    }
}
