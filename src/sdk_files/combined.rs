//! The two files of a job that uses several profiles: `credentials.json` with a token for the server of each, and no JWT.
//!
//! The SDK presents what is in its identity token file to whatever server it exchanges with. With several servers, one of
//! them would be shown a JWT that is for another. So the file holds a word, for as long as the job runs: there is nothing to
//! present. In return every token must stay above the 300 s at which the SDK exchanges by itself.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::changes::Watcher;
use super::{FOREIGN_WRITE_DELAY, WRITE_TIMEOUT, format, retry};
use crate::atomic_file;
use crate::blocking;
use crate::clock::{Clock, Now};
use crate::paths::{self, CREDENTIALS, IDENTITY_TOKEN};
use crate::profile::Profile;
use crate::token::{AccessToken, Expires as _, TokenHash};

pub struct Combined {
    pub identity_token: PathBuf,
    pub credentials: PathBuf,
    dir: PathBuf,
    profiles: Vec<Arc<Profile>>,
    written: watch::Sender<Written>,
    /// What was there before us, for profiles that have had no token since: a reload must not take it from running jobs.
    inherited: Mutex<Option<Vec<Option<AccessToken>>>>,
}

/// What is on disk now.
#[derive(Clone, Debug, Default)]
struct Written {
    tokens: Vec<Option<TokenHash>>,
    error: Option<Arc<str>>,
}

impl Combined {
    pub fn new(dir: PathBuf, profiles: Vec<Arc<Profile>>) -> Self {
        let (identity_token, credentials) = (dir.join(IDENTITY_TOKEN), dir.join(CREDENTIALS));
        let (written, inherited) = (watch::Sender::default(), Mutex::default());
        Self { identity_token, credentials, dir, profiles, written, inherited }
    }

    /// Waits until the files hold these tokens, or later ones, in the order of the profiles; or until a write fails.
    pub async fn wait_until_written(&self, tokens: &[TokenHash]) -> Result<(), Arc<str>> {
        let mut written = self.written.subscribe();
        let before = written.borrow().clone();
        let ready = written.wait_for(|now| {
            let is_there = |(index, wanted): (usize, &TokenHash)| match now.tokens.get(index) {
                Some(Some(found)) => found == wanted || before.tokens.get(index) != Some(&Some(*found)),
                _ => false,
            };
            now.error.is_some() || tokens.iter().enumerate().all(is_there)
        });
        match tokio::time::timeout(WRITE_TIMEOUT, ready).await {
            Ok(Ok(now)) => now.error.clone().map_or(Ok(()), Err),
            _ => Err("writing the SDK files takes too long".into()),
        }
    }

    /// Keeps the files in step with the keepers. Ends only when its task is aborted.
    pub async fn run(self: Arc<Self>, clock: Clock) {
        let changed = Arc::new(Notify::new());
        let mut followers = JoinSet::new();
        for profile in &self.profiles {
            let (mut tokens, changed) = (profile.access.subscribe(), Arc::clone(&changed));
            followers.spawn(async move {
                while tokens.changed().await.is_ok() {
                    changed.notify_one();
                }
            });
        }
        let mut watcher = Watcher::new();
        let mut failures: u32 = 0;
        loop {
            match self.update(clock.now()).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        warn!(dir = %self.dir.display(), %error, "cannot write the SDK files of several profiles");
                    }
                    failures = failures.saturating_add(1);
                }
            }
            watcher.watch(&self.dir);
            tokio::select! {
                () = changed.notified() => {}
                () = retry(failures, &clock) => {}
                () = watcher.changed() => drop(clock.sleep(FOREIGN_WRITE_DELAY).await),
            }
        }
    }

    /// Writes what is not there yet, or not any more.
    async fn update(self: &Arc<Self>, now: Now) -> io::Result<()> {
        let tokens: Vec<Option<AccessToken>> =
            self.profiles.iter().map(|profile| profile.access.read(|known| known.token.clone())).collect();
        let hashes = tokens.iter().map(|token| token.as_ref().map(AccessToken::hash)).collect();
        let files = Arc::clone(self);
        let outcome = blocking::run(move || files.write(&tokens, now)).await.flatten();
        self.written.send_modify(|written| match &outcome {
            Ok(()) => *written = Written { tokens: hashes, error: None },
            Err(error) => written.error = Some(error.to_string().into()),
        });
        outcome
    }

    fn write(&self, tokens: &[Option<AccessToken>], now: Now) -> io::Result<()> {
        let mut inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        let inherited = inherited.get_or_insert_with(|| self.on_disk(now));
        for (before, token) in inherited.iter_mut().zip(tokens) {
            // Once there was a token, none means signed out.
            let goes_on = |before: &AccessToken| token.is_none() && !before.expiry().remaining(now).is_zero();
            *before = before.take().filter(goes_on);
        }
        let known = tokens.iter().zip(&*inherited).map(|(token, before)| token.as_ref().or(before.as_ref()));
        let known = self.profiles.iter().zip(known);
        let known: Vec<_> = known.filter_map(|(profile, token)| Some((&profile.base_url, token?))).collect();
        if known.is_empty() {
            // Nobody has signed in yet, or all have signed out.
            return self.remove_now();
        }
        paths::private_dir(&self.dir).map_err(io::Error::other)?;
        let json = format::credentials_of_all(&known);
        for (path, bytes) in [(&self.credentials, &**json), (&self.identity_token, format::RELAY.as_bytes())]
        {
            if std::fs::read(path).map(Zeroizing::new).is_ok_and(|found| **found == *bytes) {
                continue;
            }
            debug!(path = %path.display(), "writing the SDK files of several profiles");
            atomic_file::replace(path, bytes).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn on_disk(&self, now: Now) -> Vec<Option<AccessToken>> {
        let json = std::fs::read(&self.credentials).map(Zeroizing::new).unwrap_or_default();
        let of = |profile: &Arc<Profile>| format::parse_credentials(&json, &profile.base_url, now);
        let trusted = paths::check_private(&self.dir).is_ok();
        self.profiles.iter().map(|profile| of(profile).filter(|_| trusted)).collect()
    }

    /// To be called when nothing runs that would write them again.
    pub async fn remove(self: &Arc<Self>) {
        let files = Arc::clone(self);
        if let Err(error) = blocking::run(move || files.remove_now()).await.flatten() {
            warn!(dir = %self.dir.display(), %error, "cannot remove the SDK files of several profiles");
        }
    }

    fn remove_now(&self) -> io::Result<()> {
        [&self.credentials, &self.identity_token].iter().try_for_each(|path| {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
    }
}
