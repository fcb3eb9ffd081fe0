//! Processes that use the SDK files: a profile stays hot until each has ended.
//!
//! They are recorded beside the socket, so that a daemon that is started again after a crash keeps their files fresh:
//! nobody would tell it about them.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::answer::whole_seconds;
use super::directory::Directory;
use super::hangup::Hangups;
use crate::api::{JobOrigin, RunningJob};
use crate::atomic_file;
use crate::blocking;
use crate::clock::Clock;
use crate::env::Env;
use crate::json;
use crate::keeper::{Demand, JobGuard};
use crate::netrc;
use crate::process::{Facts, Process, system};

/// The watched processes.
#[derive(Clone)]
pub(super) struct Jobs(Arc<Shared>);

struct Shared {
    running: Mutex<Running>,
    record: PathBuf,
    hangups: Hangups,
    /// How many there are.
    count: watch::Sender<usize>,
    clock: Clock,
    /// The version that was written last. Held while writing, so that an older one never comes after a newer.
    written: tokio::sync::Mutex<u64>,
}

#[derive(Default)]
struct Running {
    guards: HashMap<Job, Known>,
    /// Counts the changes.
    version: u64,
    /// For jobs that only a connection stands for.
    connections: u64,
}

/// A process and the name of the profile (or of several, see [`Directory::several`]) that it uses: a reload may replace the profile itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Job {
    #[serde(flatten)]
    who: Who,
    profile: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
enum Who {
    Process(Process),
    /// A process that we cannot see. It lasts as long as its connection, so it is of no use to a later daemon.
    Connection {
        connection: u64,
    },
}

/// What is kept of a job.
struct Known {
    /// Of each profile that it uses.
    guards: Vec<JobGuard>,
    since: Timestamp,
    by: JobOrigin,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Process numbers and start times mean nothing elsewhere.
    system: String,
    #[serde(deserialize_with = "json::readable")]
    jobs: Vec<Recorded>,
}

#[derive(Serialize, Deserialize)]
struct Recorded {
    #[serde(flatten)]
    job: Job,
    /// Absent in the records of earlier versions.
    #[serde(default)]
    since: Option<Timestamp>,
    #[serde(default, deserialize_with = "json::or_default")]
    by: JobOrigin,
}

impl Jobs {
    /// Records its jobs in `folder`.
    pub(super) fn new(folder: &Path, hangups: Hangups, clock: Clock) -> Self {
        let (running, written) = (Mutex::default(), tokio::sync::Mutex::default());
        let count = watch::Sender::default();
        Self(Arc::new(Shared { running, record: folder.join(RECORD), hangups, count, clock, written }))
    }

    /// Keeps the profiles of `demands` hot until `process` has ended. A second call for the same process changes nothing.
    /// Returns once it is recorded.
    pub(super) async fn watch(
        &self,
        process: Process,
        by: JobOrigin,
        profile: &str,
        demands: &[Arc<Demand>],
    ) -> Result<(), String> {
        let job = Job { who: Who::Process(process), profile: profile.to_owned() };
        if self.add(job.clone(), by, None, demands)? {
            self.follow(job, process.end());
            self.record().await;
        }
        Ok(())
    }

    /// Keeps the profiles of `demands` hot until the other end of `connection` is closed.
    pub(super) fn hold(
        &self,
        connection: OwnedFd,
        profile: &str,
        demands: &[Arc<Demand>],
    ) -> Result<(), String> {
        let hangups = self.0.hangups.clone();
        let gone = async move { hangups.wait(&connection).await };
        let connection = {
            let mut running = self.running();
            running.connections += 1;
            running.connections
        };
        let job = Job { who: Who::Connection { connection }, profile: profile.to_owned() };
        self.add(job.clone(), JobOrigin::Held, None, demands)?;
        self.follow(job, gone);
        Ok(())
    }

    /// Takes up the jobs that an earlier daemon watched and that still run.
    pub(super) async fn take_up(&self, directory: &Directory) {
        let path = self.0.record.clone();
        let read = blocking::run(move || {
            if let Some(folder) = path.parent() {
                atomic_file::remove_leftovers(folder);
            }
            std::fs::read(path).ok().and_then(|json| serde_json::from_slice::<Record>(&json).ok())
        });
        let Ok(Some(record)) = read.await else { return };
        if record.system != system() {
            return;
        }
        for Recorded { job, since, by } in record.jobs {
            if let Who::Process(process) = job.who
                && process.is_running()
                && let Some(demands) = directory.demands(&job.profile)
                && self.add(job.clone(), by, since, &demands).unwrap_or_default()
            {
                info!(profile = job.profile, pid = process.pid, "took up a job of an earlier daemon");
                self.follow(job, process.end());
            }
        }
        self.record().await;
    }

    /// The record was lost with its folder.
    pub(super) async fn record_again(&self) {
        self.running().version += 1;
        self.record().await;
    }

    /// The jobs, the oldest first, with what is known of each now.
    pub(super) async fn list(&self) -> Vec<RunningJob> {
        let jobs: Vec<_> = {
            let running = self.running();
            running.guards.iter().map(|(job, known)| (job.clone(), known.since, known.by)).collect()
        };
        let look = move || {
            let mut list: Vec<_> =
                jobs.into_iter().map(|(job, since, by)| running_job(job, since, by)).collect();
            list.sort_by(|a, b| (a.since, a.pid, &a.profile).cmp(&(b.since, b.pid, &b.profile)));
            list
        };
        blocking::run(look).await.unwrap_or_default()
    }

    /// The names of the profiles, or of several at once, that jobs use.
    pub(super) fn profiles(&self) -> BTreeSet<String> {
        self.running().guards.keys().map(|job| job.profile.clone()).collect()
    }

    /// How many processes use the SDK files.
    pub(super) fn count(&self) -> usize {
        *self.0.count.borrow()
    }

    /// Follows how many there are.
    pub(super) fn changes(&self) -> watch::Receiver<usize> {
        self.0.count.subscribe()
    }

    /// Waits until there are none.
    pub(super) async fn until_none(&self) {
        // The sender is ours: it does not go away.
        let _ = self.0.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Writes no more: the folder is about to be removed. Waits for a write under way.
    pub(super) async fn close_record(&self) {
        *self.0.written.lock().await = CLOSED;
    }

    /// After a reload: a job goes on with the profile that has its profile's name now.
    pub(super) fn move_to(&self, directory: &Directory) {
        for (job, known) in &mut self.running().guards {
            if let Some(demands) = directory.demands(&job.profile) {
                known.guards = demands.iter().map(Demand::hold).collect();
            }
        }
    }

    /// Whether it is new.
    fn add(
        &self,
        job: Job,
        by: JobOrigin,
        since: Option<Timestamp>,
        demands: &[Arc<Demand>],
    ) -> Result<bool, String> {
        let mut running = self.running();
        if running.guards.contains_key(&job) {
            return Ok(false);
        }
        if running.guards.len() >= MAX_JOBS {
            return Err(format!("the daemon already watches {MAX_JOBS} jobs"));
        }
        let since = since.unwrap_or_else(|| self.0.clock.now().wall);
        running.guards.insert(job, Known { guards: demands.iter().map(Demand::hold).collect(), since, by });
        running.version += 1;
        self.0.count.send_replace(running.guards.len());
        Ok(true)
    }

    fn follow(&self, job: Job, end: impl Future<Output = ()> + Send + 'static) {
        let jobs = self.clone();
        tokio::spawn(async move {
            end.await;
            // What `exec` made for it, and nobody holds any more. Begun first, since a daemon that nobody needs any more ends;
            // awaited by nothing that matters.
            let sweep = netrc::sweep_in_time(Env::system());
            let forget = async {
                {
                    let mut running = jobs.running();
                    running.guards.remove(&job);
                    running.version += 1;
                    jobs.0.count.send_replace(running.guards.len());
                }
                jobs.record().await;
            };
            tokio::join!(sweep, forget);
        });
    }

    /// Writes the record, unless a write that began later has done it. A failure costs only what a crash would lose.
    async fn record(&self) {
        let mut written = self.0.written.lock().await;
        let (version, jobs) = {
            let running = self.running();
            if running.version == *written || *written == CLOSED {
                return;
            }
            let known = |job: &Job| matches!(job.who, Who::Process(Process { start: Some(_), .. }));
            let jobs = running.guards.iter().filter(|(job, _)| known(job)).map(|(job, known)| Recorded {
                job: job.clone(),
                since: Some(known.since),
                by: known.by,
            });
            (running.version, jobs.collect())
        };
        let (path, record) = (self.0.record.clone(), Record { system: system(), jobs });
        let write = blocking::run(move || {
            let json = serde_json::to_vec(&record).expect("plain data");
            atomic_file::replace(&path, &json)
        });
        if let Ok(Err(error)) = write.await {
            warn!(%error, "a daemon started after a crash would not know of the running jobs");
        }
        *written = version;
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn running_job(job: Job, since: Timestamp, by: JobOrigin) -> RunningJob {
    let process = match job.who {
        Who::Process(process) => Some(process),
        Who::Connection { .. } => None,
    };
    let facts = process.map(Facts::of).unwrap_or_default();
    RunningJob {
        profile: job.profile,
        since: whole_seconds(since),
        by,
        pid: process.map(|process| process.pid),
        uid: facts.uid,
        command: facts.command,
        executable: facts.executable,
        cgroup: facts.cgroup,
        container: facts.container,
        scheduler_job: facts.job,
    }
}

/// A version that no change reaches.
const CLOSED: u64 = u64::MAX;

/// More than any node runs.
const MAX_JOBS: usize = 4096;

const RECORD: &str = "jobs.json";
