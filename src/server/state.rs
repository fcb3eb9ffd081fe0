//! What every request can see: the profiles of the moment, the clock, the jobs.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use super::directory::Directory;
use super::doctor::DoctorCache;
use super::hangup::Hangups;
use super::jobs::Jobs;
use super::metrics::Metrics;
use crate::clock::{Clock, Now};
use crate::http::Http;
use crate::login::Logins;

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
    pub(super) hangups: Hangups,
    pub(super) metrics: Metrics,
    /// For the doctor's own requests.
    pub(super) http: Http,
    pub(super) doctor_cache: DoctorCache,
}

impl State {
    pub fn new(directory: Directory, clock: Clock, socket: PathBuf, http: Http) -> Self {
        let started = clock.now();
        let logins = Logins::new(clock.clone());
        let hangups = Hangups::new();
        let jobs = Jobs::new(socket.parent().unwrap_or(Path::new("/")), hangups.clone());
        Self {
            directory: RwLock::new(Arc::new(directory)),
            clock,
            started,
            uid: rustix::process::geteuid().as_raw(),
            socket,
            logins,
            locked: AtomicBool::new(false),
            jobs,
            hangups,
            metrics: Metrics::default(),
            http,
            doctor_cache: DoctorCache::default(),
        }
    }

    /// The profiles as they are now. A reload swaps the whole; requests under way keep what they saw.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Jobs of an earlier daemon that still run are watched again.
    pub async fn take_up_jobs(&self) {
        self.jobs.take_up(&self.directory()).await;
    }

    /// The folder of the socket was removed, and is there again.
    pub async fn record_jobs_again(&self) {
        self.jobs.record_again().await;
    }

    /// The folder of the socket is about to be removed for good.
    pub async fn close_job_record(&self) {
        self.jobs.close_record().await;
    }

    pub fn swap(&self, directory: Directory) {
        self.jobs.move_to(&directory);
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
    }
}
