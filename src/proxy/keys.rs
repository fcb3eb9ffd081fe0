//! The keys of running jobs. A key is known by its hash alone, and dies with its job.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openidconnect::CsrfToken;
use subtle::ConstantTimeEq as _;

use super::counts::{Counts, Tally};
use super::head::{KEY_LENGTH, Refusal};
use crate::keeper::JobGuard;
use crate::process::Process;
use crate::profile::Profile;
use crate::token::{Secret, TokenHash};

/// A job that has a key.
pub(super) struct Job {
    pub(super) key: TokenHash,
    /// By name, since a reload may replace the profile itself.
    pub(super) name: Arc<str>,
    now: Mutex<Now>,
    pub(super) counts: Counts,
}

/// What may change while a job runs.
struct Now {
    profile: Arc<Profile>,
    /// None if only a connection stands for it.
    process: Option<Process>,
    /// Keeps the profile hot for a process that nobody registered.
    heir: Option<JobGuard>,
    /// The token that it made use of last.
    token: Option<TokenHash>,
}

impl Job {
    pub(super) fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.now().profile)
    }

    pub(super) fn process(&self) -> Option<Process> {
        self.now().process
    }

    /// Its process has ended, and `heir` has its key.
    pub(super) fn pass_to(&self, heir: Process) {
        let mut now = self.now();
        now.process = Some(heir);
        now.heir = Some(now.profile.demand.hold());
    }

    /// Whether the job makes use of a token that it did not use before.
    pub(super) fn uses(&self, token: TokenHash) -> bool {
        self.now().token.replace(token) != Some(token)
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct Keys {
    jobs: Vec<Arc<Job>>,
    /// The last of those that are over.
    ended: VecDeque<TokenHash>,
    /// Since the daemon started.
    tallies: BTreeMap<Arc<str>, Arc<Tally>>,
}

impl Keys {
    /// A key that nobody can guess: 160 random bits, in an alphabet that every SDK takes.
    pub(super) fn invent() -> Secret<String> {
        let random = CsrfToken::new_random_len(32);
        let mut key = TokenHash::of(random.secret()).to_string();
        key.truncate(KEY_LENGTH);
        Secret::new(key)
    }

    pub(super) fn add(
        &mut self,
        key: TokenHash,
        process: Option<Process>,
        profile: &Arc<Profile>,
    ) -> Result<Arc<Job>, String> {
        if self.jobs.len() >= MAX_JOBS {
            return Err(format!("the proxy already has {MAX_JOBS} keys"));
        }
        let name = Arc::clone(&profile.name);
        let tally = Arc::clone(self.tallies.entry(Arc::clone(&name)).or_default());
        let counts = Counts { job: Arc::default(), profile: tally };
        let now = Now { profile: Arc::clone(profile), process, heir: None, token: None };
        let job = Job { key, name, now: Mutex::new(now), counts };
        let job = Arc::new(job);
        self.jobs.push(Arc::clone(&job));
        Ok(job)
    }

    /// Whether it was the last one.
    pub(super) fn end(&mut self, key: TokenHash) -> bool {
        self.jobs.retain(|job| job.key != key);
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(key);
        self.jobs.is_empty()
    }

    /// Looks at all keys, whichever is the one, so that the time taken says nothing.
    pub(super) fn find(&self, key: &str) -> Result<Arc<Job>, Refusal> {
        let hash = TokenHash::of(key);
        let is = |known: &TokenHash| bool::from(known.bytes().ct_eq(hash.bytes()));
        let found = self.jobs.iter().fold(None, |found, job| if is(&job.key) { Some(job) } else { found });
        match found {
            Some(job) => Ok(Arc::clone(job)),
            None if self.ended.iter().fold(false, |found, key| found | is(key)) => Err(Refusal::Ended),
            None => Err(Refusal::ForeignKey),
        }
    }

    pub(super) fn newest(&self) -> Option<Arc<Job>> {
        self.jobs.last().cloned()
    }

    pub(super) fn jobs(&self) -> &[Arc<Job>] {
        &self.jobs
    }

    pub(super) fn tallies(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.tallies.iter().map(|(name, tally)| (&**name, &**tally))
    }

    /// After a reload: a job goes on with the profile that has its profile's name now.
    pub(super) fn move_to(&self, find: impl Fn(&str) -> Option<Arc<Profile>>) {
        for job in &self.jobs {
            if let Some(profile) = find(&job.name) {
                let mut now = job.now();
                now.heir = now.heir.as_ref().map(|_| profile.demand.hold());
                now.profile = profile;
            }
        }
    }
}

/// More than any node runs.
const MAX_JOBS: usize = 4096;

/// For these, the answer says that their job is over.
const MAX_ENDED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sdk_takes_the_keys_and_no_two_are_alike() {
        let keys: std::collections::BTreeSet<String> =
            (0..100).map(|_| Keys::invent().expose().clone()).collect();
        assert_eq!(keys.len(), 100);
        for key in keys {
            assert!(key.len() == KEY_LENGTH && key.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{key}");
        }
    }
}
