//! What every request can see: the profiles of the moment, the clock, the jobs.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use super::directory::Directory;
use super::doctor::DoctorCache;
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
    pub(super) metrics: Metrics,
    /// For the doctor's own requests.
    pub(super) http: Http,
    pub(super) doctor_cache: DoctorCache,
}

impl State {
    pub fn new(directory: Directory, clock: Clock, socket: PathBuf, http: Http) -> Self {
        let started = clock.now();
        let logins = Logins::new(clock.clone());
        Self {
            directory: RwLock::new(Arc::new(directory)),
            clock,
            started,
            uid: rustix::process::geteuid().as_raw(),
            socket,
            logins,
            locked: AtomicBool::new(false),
            jobs: Jobs::default(),
            metrics: Metrics::default(),
            http,
            doctor_cache: DoctorCache::default(),
        }
    }

    /// The profiles as they are now. A reload swaps the whole; requests under way keep what they saw.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn swap(&self, directory: Directory) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
    }
}
