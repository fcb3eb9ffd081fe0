//! The profiles that run: started, replaced and stopped as the configuration says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::env::Env;
use crate::paths::Places;
use crate::profile::{self, Parts};
use crate::sdk_files::Files;
use crate::server::{Directory, Member, State};
use crate::{login, provider};

/// The running profiles, and what new ones are built with.
pub(super) struct ProfileSet {
    places: Places,
    parts: Parts,
    running: BTreeMap<String, Running>,
    /// Sessions of profiles that are no more, until what they redeemed is in its store.
    closing: JoinSet<()>,
}

struct Running {
    member: Arc<Member>,
    fingerprint: String,
    /// Aborts the profile's tasks when dropped.
    _tasks: JoinSet<()>,
}

impl ProfileSet {
    pub(super) fn new(places: Places, parts: Parts) -> Self {
        Self { places, parts, running: BTreeMap::new(), closing: JoinSet::new() }
    }

    /// Brings the running profiles in line with `config`: those that did not change keep their tokens.
    pub(super) fn apply(&mut self, config: &Config) -> Directory {
        let mut before = std::mem::take(&mut self.running);
        let mut gone = Vec::new();
        for (name, profile) in &config.profiles {
            let fingerprint = fingerprint(name, profile);
            let running = match before.remove(name) {
                Some(running) if running.fingerprint == fingerprint => running,
                replaced => {
                    gone.extend(replaced);
                    self.start(name, profile.clone(), fingerprint)
                }
            };
            self.running.insert(name.clone(), running);
        }
        for (name, mistake) in &config.broken {
            let path = config.path.as_deref().unwrap_or(&self.places.config).display().to_string();
            let explained = format!("{path}{mistake}");
            error!(profile = name, error = explained, "this profile is misconfigured; the others go on");
            let profile = profile::Config::new(provider::Config::Invalid(explained.clone()));
            let running = self.start(name, profile, explained);
            self.running.insert(name.clone(), running);
        }
        for running in gone.iter().chain(before.values()) {
            close(&mut self.closing, running, &self.parts.clock);
        }
        Directory {
            config: config.server.clone(),
            config_path: config.path.clone(),
            default: config.default_profile().map(str::to_owned),
            members: self.members(),
            awaited: None,
        }
    }

    fn members(&self) -> BTreeMap<String, Arc<Member>> {
        self.running.iter().map(|(name, r)| (name.clone(), Arc::clone(&r.member))).collect()
    }

    /// Adds a profile that is fed, or replaces it.
    pub(super) fn add(&mut self, name: &str, config: profile::Config) -> Directory {
        let fingerprint = fingerprint(name, &config);
        let running = self.start(name, config, fingerprint);
        self.running.insert(name.to_owned(), running);
        // The only one is the default.
        let default = self.running.keys().next().filter(|_| self.running.len() == 1).cloned();
        Directory { default, members: self.members(), ..Directory::default() }
    }

    /// No profile at all.
    pub(super) fn none(&self) -> Directory {
        Directory { members: self.members(), ..Directory::default() }
    }

    pub(super) fn member(&self, name: &str) -> Option<&Arc<Member>> {
        self.running.get(name).map(|running| &running.member)
    }

    fn start(&self, name: &str, config: profile::Config, fingerprint: String) -> Running {
        let files = config.sdk_files.then(|| {
            Arc::new(Files::new(self.places.profile(name), config.base_url.clone(), fingerprint.clone()))
        });
        let now = self.parts.clock.now();
        let restored = files.as_ref().map(|files| files.restore(now)).unwrap_or_default();
        if restored.access.is_some() {
            info!(profile = name, "took over the access token of an earlier daemon");
        }
        let (profile, loops) = config.build(name, &self.parts, restored);
        let profile = Arc::new(profile);
        let mut tasks = JoinSet::new();
        tasks.spawn(loops.run(Arc::clone(&profile)));
        if let Some(files) = &files {
            tasks.spawn(Arc::clone(files).run(Arc::clone(&profile), self.parts.clock.clone()));
        }
        if let Some(session) = &profile.session {
            let clock = self.parts.clock.clone();
            tasks.spawn(login::follow::follow(Arc::clone(&profile), Arc::clone(session), clock));
        }
        let member = Arc::new(Member::new(profile, files));
        Running { member, fingerprint, _tasks: tasks }
    }

    /// Closes the sessions: a refresh token that was redeemed must reach its store.
    pub(super) async fn drain(&mut self) {
        for running in self.running.values() {
            close(&mut self.closing, running, &self.parts.clock);
        }
        let all = async { while self.closing.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
            error!("stopping with a sign-in that could not be saved");
        }
    }

    /// SIGHUP. Validated whole before anything is swapped; profiles that failed try again at once.
    pub(super) async fn reload(&mut self, env: &Env, state: &State) {
        match Config::load_in_time(&self.places.config, env).await.and_then(Config::strict) {
            Ok(config) => {
                let directory = self.apply(&config);
                let profiles = directory.members.len();
                state.swap(directory);
                for running in self.running.values() {
                    running.member.profile.retry_failed();
                }
                info!(profiles, "configuration reloaded");
            }
            Err(error) => warn!(%error, "the new configuration is wrong, the old one stays in force"),
        }
    }
}

/// Waits for a refresh under way, which aborting the profile's tasks does not cut short, and for the store.
fn close(closing: &mut JoinSet<()>, running: &Running, clock: &Clock) {
    while closing.try_join_next().is_some() {}
    let profile = &running.member.profile;
    let Some(session) = profile.session.clone() else { return };
    let (name, clock) = (Arc::clone(&profile.name), clock.clone());
    closing.spawn(async move {
        let Err(error) = session.close().await else { return };
        error!(profile = &*name, %error, "a renewed sign-in is not saved yet");
        while session.close().await.is_err() {
            clock.sleep(CLOSE_INTERVAL).await;
        }
    });
}

/// Names a profile's configuration without showing it.
fn fingerprint(name: &str, profile: &profile::Config) -> String {
    // `Debug` redacts a secret, and a changed one must count as a change.
    let secret = profile.secret().map_or("", |secret| secret.expose());
    format!("{:x}", Sha256::new_with_prefix(format!("{name} {profile:?}")).chain_update(secret).finalize())
}

/// For a refresh under way at the end: one request (20 s), and one write to a keyring (5 s). The units wait for longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Between attempts to save what the store has not taken yet.
const CLOSE_INTERVAL: Duration = Duration::from_secs(2);
