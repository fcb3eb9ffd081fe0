//! What every request can see: the profiles of the moment, the clock, the jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;

use super::answer::TokenAnswer;
use super::doctor::DoctorCache;
use super::jobs::Jobs;
use super::metrics::Metrics;
use crate::clock::{Clock, Now};
use crate::http::Http;
use crate::login::Logins;
use crate::profile::Profile;
use crate::sdk_files::Files;

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
    /// For the doctor's own questions.
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

/// The keys of the configuration outside any profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The profile of requests that name none. Needed only if there are several.
    pub default_profile: Option<String>,
    /// Other users who may ask for tokens. They must also be able to reach the socket.
    pub allow_uids: Vec<u32>,
    pub allow_gids: Vec<u32>,
}

/// The profiles by name, and what concerns them all.
#[derive(Default)]
pub struct Directory {
    pub config: Config,
    /// The configuration file, if there is one.
    pub config_path: Option<PathBuf>,
    pub default: Option<String>,
    pub members: BTreeMap<String, Arc<Member>>,
}

/// One profile with its edges.
pub struct Member {
    pub profile: Arc<Profile>,
    pub files: Option<Arc<Files>>,
    pub(super) token_answer: TokenAnswer,
}

impl Member {
    pub fn new(profile: Arc<Profile>, files: Option<Arc<Files>>) -> Self {
        Self { profile, files, token_answer: TokenAnswer::default() }
    }
}
