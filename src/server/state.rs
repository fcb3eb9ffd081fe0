//! What every request can see: the profiles of the moment, the clock, the jobs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use super::audit::Audit;
use super::combinations::Combinations;
use super::directory::{Directory, Member};
use super::doctor::DoctorCache;
use super::hangup::Hangups;
use super::jobs::Jobs;
use super::metrics::Metrics;
use crate::api::JobOrigin;
use crate::clock::{Clock, Now};
use crate::login::Logins;
use crate::process::Process;
use crate::proxy::Proxy;

pub struct State {
    directory: RwLock<Arc<Directory>>,
    pub clock: Clock,
    pub started: Now,
    /// Who we are, and whom we serve.
    pub(super) uid: u32,
    pub socket: PathBuf,
    pub logins: Logins,
    /// While set, no token is handed out.
    pub(super) locked: AtomicBool,
    pub(super) jobs: Jobs,
    /// The files of those that use several profiles.
    pub(super) combinations: Combinations,
    pub proxy: Arc<Proxy>,
    /// Requests that made use of the daemon, rather than look at it.
    uses: AtomicU64,
    /// It is leaving, and takes no more jobs.
    closed: AtomicBool,
    pub(super) hangups: Hangups,
    pub(super) metrics: Metrics,
    pub(super) audit: Arc<Audit>,
    /// They record what goes into the SDK files.
    audit_tasks: Mutex<JoinSet<()>>,
    pub(super) doctor_cache: DoctorCache,
}

impl State {
    pub fn new(directory: Directory, clock: Clock, socket: PathBuf) -> Self {
        let started = clock.now();
        let logins = Logins::new(clock.clone());
        let hangups = Hangups::new();
        let folder = socket.parent().unwrap_or(Path::new("/"));
        let jobs = Jobs::new(folder, hangups.clone(), clock.clone());
        let combinations = Combinations::new(&socket, clock.clone());
        let audit = Arc::new(Audit::new(clock.clone()));
        let hears = Arc::clone(&audit);
        let proxy = Proxy::new(folder, move |used| hears.note_proxied(used));
        let audit_tasks =
            Mutex::new(audit.configure(directory.config.audit_log.as_ref(), directory.with_files()));
        Self {
            directory: RwLock::new(Arc::new(directory)),
            clock,
            started,
            uid: rustix::process::geteuid().as_raw(),
            socket,
            logins,
            locked: AtomicBool::new(false),
            jobs,
            combinations,
            proxy,
            uses: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            hangups,
            metrics: Metrics::default(),
            audit,
            audit_tasks,
            doctor_cache: DoctorCache::default(),
        }
    }

    /// The profiles as they are now. A reload swaps the whole; requests under way keep what they saw.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Jobs of an earlier daemon that still run are watched again.
    pub async fn take_up_jobs(&self) {
        let directory = self.directory();
        self.jobs.take_up(&directory).await;
        self.combinations.start(self.jobs.profiles(), &directory);
        self.proxy.take_up(|name| directory.profile(name)).await;
    }

    /// How many processes use the SDK files.
    pub fn jobs_running(&self) -> usize {
        self.jobs.count()
    }

    /// Waits until no process uses the SDK files.
    pub async fn jobs_ended(&self) {
        self.jobs.until_none().await;
    }

    /// Follows the jobs from now on: it also tells of one that came and went before anybody looked.
    pub fn job_changes(&self) -> watch::Receiver<usize> {
        self.jobs.changes()
    }

    /// A process that carries `path`, one of our files, in its environment: its profile stays hot until it ends. Whether that
    /// is new.
    pub async fn adopt(&self, process: Process, path: &Path) -> bool {
        let directory = self.directory();
        let owns =
            |member: &&Arc<Member>| member.files.as_ref().is_some_and(|files| files.identity_token == path);
        let name = match directory.members.values().find(owns) {
            Some(member) => Some(member.profile.name.to_string()),
            None => self.combinations.owner_of(path),
        };
        match name {
            Some(name) => self.adopt_for(process, &name, &directory).await,
            None => false,
        }
    }

    /// The same for processes that carry a key of the proxy.
    pub async fn adopt_holders_of_keys(&self) -> bool {
        let directory = self.directory();
        let mut adopted = false;
        for (process, name) in self.proxy.holders().await {
            adopted |= self.adopt_for(process, &name, &directory).await;
        }
        adopted
    }

    async fn adopt_for(&self, process: Process, name: &str, directory: &Directory) -> bool {
        let Some(demands) = directory.demands(name) else { return false };
        info!(profile = name, pid = process.pid, "a process has outlived the job that it came from");
        self.jobs.watch(process, JobOrigin::Adopted, name, &demands).await.is_ok()
    }

    /// Removes all SDK files until the next job registers. Does nothing while there is one.
    pub async fn withdraw_files(&self) {
        if self.jobs.count() > 0 {
            return;
        }
        let directory = self.directory();
        self.combinations.end().await;
        if self.jobs.count() > 0 {
            return;
        }
        let files = || directory.members.values().filter_map(|member| member.files.as_ref());
        files().for_each(|files| files.withdraw());
        for files in files() {
            files.wait_until_gone().await;
        }
    }

    pub(super) fn used(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the requests that made use of the daemon.
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for an answer, or a sign-in is under way.
    pub fn is_asked(&self) -> bool {
        self.metrics.waiting() > 0
    }

    /// Takes no more jobs from now on, unless there is one or somebody has asked for something after the first `uses`.
    pub fn close_if_unneeded(&self, uses: u64) -> bool {
        let unneeded = self.jobs.count() == 0 && self.uses() == uses;
        self.closed.store(unneeded, Ordering::Relaxed);
        unneeded
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The folder of the socket was removed, and is there again.
    pub async fn record_jobs_again(&self) {
        self.jobs.record_again().await;
        self.proxy.record_again().await;
    }

    /// The folder of the socket is about to be removed for good.
    pub async fn close_job_record(&self) {
        self.jobs.close_record().await;
        self.proxy.close_record().await;
    }

    /// Writes what is left of the audit log.
    pub async fn close_audit_log(&self) {
        self.audit.close().await;
    }

    pub fn swap(&self, directory: Directory) {
        self.jobs.move_to(&directory);
        self.combinations.start(self.jobs.profiles(), &directory);
        *self.audit_tasks.lock().unwrap_or_else(PoisonError::into_inner) =
            self.audit.configure(directory.config.audit_log.as_ref(), directory.with_files());
        self.proxy.move_to(|name| directory.profile(name));
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
    }
}
