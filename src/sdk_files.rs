//! The two files that an unmodified W&B SDK reads: `identity-token` and `credentials.json`.
//!
//! One task per profile follows both keepers and writes what changed. A write that fails is logged and retried, and
//! nothing waits for it. If another program rewrites a file (the SDK does, when it has exchanged by itself), the task
//! notices and restores it. ARCHITECTURE.md says what the SDK demands of these files; `format` implements it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::atomic_file;
use crate::backoff::Backoff;
use crate::blocking;
use crate::clock::{Clock, Now};
use crate::keeper::{Keeper, Restored};
use crate::paths::{self, CREDENTIALS, IDENTITY_TOKEN};
use crate::profile::{BaseUrl, Profile, RestoredTokens};
use crate::token::{AccessToken, Expires, IdentityToken, TokenHash};

mod changes;
mod combined;
mod format;

pub use combined::Combined;

/// Where one profile's files are, and what was last written to them.
pub struct Files {
    pub identity_token: PathBuf,
    pub credentials: PathBuf,
    dir: PathBuf,
    base_url: BaseUrl,
    /// Identifies the configuration that the files were made under, so that a restart can trust them.
    fingerprint: String,
    written: watch::Sender<Written>,
    /// Nobody uses them, so they are not to be there.
    withdrawn: watch::Sender<bool>,
}

/// What is on disk now.
#[derive(Clone, Debug, Default, PartialEq)]
struct Written {
    identity: Option<TokenHash>,
    access: Option<TokenHash>,
    error: Option<Arc<str>>,
}

impl Written {
    fn is_any(&self) -> bool {
        self.identity.is_some() || self.access.is_some()
    }
}

impl Files {
    pub fn new(dir: PathBuf, base_url: BaseUrl, fingerprint: String) -> Self {
        Self {
            identity_token: dir.join(IDENTITY_TOKEN),
            credentials: dir.join(CREDENTIALS),
            dir,
            base_url,
            fingerprint,
            written: watch::Sender::default(),
            withdrawn: watch::Sender::default(),
        }
    }

    /// Has the files removed; they come back with [`Self::deliver`]. They are gone once [`Self::wait_until_gone`] returns.
    pub fn withdraw(&self) {
        self.withdrawn.send_replace(true);
    }

    /// Returns at once when somebody uses them again.
    pub async fn wait_until_gone(&self) {
        let (mut written, mut withdrawn) = (self.written.subscribe(), self.withdrawn.subscribe());
        let over = async {
            tokio::select! {
                _ = written.wait_for(|now| !now.is_any()) => {}
                _ = withdrawn.wait_for(|withdrawn| !withdrawn) => {}
            }
        };
        let _ = tokio::time::timeout(WRITE_TIMEOUT, over).await;
    }

    /// Somebody uses them.
    pub fn deliver(&self) {
        self.withdrawn.send_if_modified(std::mem::take);
    }

    /// The access token that is there now.
    pub fn delivered(&self) -> Option<TokenHash> {
        self.written.borrow().access
    }

    /// Waits until another access token than `last` is there.
    pub async fn next_delivery(&self, last: Option<TokenHash>) -> TokenHash {
        let mut written = self.written.subscribe();
        let next = written.wait_for(|now| now.access.is_some() && now.access != last);
        // The sender is ours: it does not go away.
        match next.await.ok().and_then(|now| now.access) {
            Some(token) => token,
            None => std::future::pending().await,
        }
    }

    /// Why the last write failed, if it did.
    pub fn error(&self) -> Option<Arc<str>> {
        self.written.borrow().error.clone()
    }

    /// Waits until both files exist and `credentials.json` holds the token with this hash (or a later one),
    /// or until a write fails.
    pub async fn wait_until_written(&self, token: TokenHash) -> Result<(), Arc<str>> {
        let mut written = self.written.subscribe();
        let before = written.borrow().clone();
        let ready = written.wait_for(|now| {
            let replaced = now.access != before.access;
            (now.identity.is_some() && (now.access == Some(token) || (replaced && now.access.is_some())))
                || (now.error.is_some() && *now != before)
        });
        match tokio::time::timeout(WRITE_TIMEOUT, ready).await {
            Ok(Ok(written)) => written.error.clone().map_or(Ok(()), Err),
            Ok(Err(_)) => Err("the daemon is stopping".into()),
            Err(_) => Err(self.error().unwrap_or_else(|| "writing the SDK files takes too long".into())),
        }
    }

    /// The tokens that an earlier daemon left here, if the configuration is the same and they have not expired. With
    /// them a restarted daemon can serve at once, and need not renew before it is time.
    pub fn restore(&self, now: Now) -> RestoredTokens {
        if paths::check_private(&self.dir).is_err() {
            return RestoredTokens::default();
        }
        atomic_file::remove_leftovers(&self.dir);
        if !self.is_ours() {
            return RestoredTokens::default();
        }
        let access = read_with_age(&self.credentials, now).and_then(|(json, age)| {
            Some(Restored { token: format::parse_credentials(&json, &self.base_url, now)?, age })
        });
        let identity = read_with_age(&self.identity_token, now).and_then(|(jwt, age)| {
            let token = IdentityToken::parse_insecure(std::str::from_utf8(&jwt).ok()?, now).ok()?;
            Some(Restored { token, age })
        });
        let restored = RestoredTokens { identity: lives(identity, now), access: lives(access, now) };
        // It is on disk already, and so is what is in the other file.
        if let Some(Restored { token, .. }) = &restored.access {
            let identity = std::fs::read_to_string(&self.identity_token).ok();
            self.written.send_modify(|written| {
                written.access = Some(token.hash());
                written.identity = identity.map(|jwt| TokenHash::of(&jwt));
            });
        }
        restored
    }

    /// Whether what is there was made under this configuration.
    fn is_ours(&self) -> bool {
        std::fs::read(self.dir.join(ORIGIN)).is_ok_and(|origin| origin == self.fingerprint.as_bytes())
    }

    /// Keeps the files in step with the keepers. Ends only when its task is aborted.
    pub async fn run(self: Arc<Self>, profile: Arc<Profile>, clock: Clock) {
        // A profile that another daemon feeds has none: the file then holds a word, which the SDK never sends.
        let mut identity = profile.identity.as_ref().map(Keeper::subscribe);
        let mut access = profile.access.subscribe();
        let mut withdrawn = self.withdrawn.subscribe();
        let mut watcher = changes::Watcher::new();
        if self.written.borrow().access.is_some() {
            watcher.watch(&self.dir);
        }
        let mut failures = 0;
        loop {
            let token = access.borrow_and_update().token.clone();
            let assertion = match &mut identity {
                Some(identity) => identity.borrow_and_update().token.clone().map(Assertion::Jwt),
                None => token.is_some().then_some(Assertion::Relay),
            };
            let wanted = Wanted { identity: assertion, access: token };
            let identity_changed = async {
                match &mut identity {
                    Some(identity) => identity.changed().await,
                    None => std::future::pending().await,
                }
            };
            let wrote = if *withdrawn.borrow_and_update() {
                if self.written.borrow().is_any() {
                    self.remove(&profile.name).await;
                }
                false
            } else {
                self.update(&wanted, &mut failures, &profile.name).await
            };
            if wrote {
                watcher.watch(&self.dir);
            }
            tokio::select! {
                changed = identity_changed => if changed.is_err() { return },
                changed = access.changed() => if changed.is_err() { return },
                _ = withdrawn.changed() => {}
                () = retry(failures, &clock) => {}
                () = watcher.changed() => {
                    // The SDK truncates the file and then writes it: let it finish first.
                    let _ = clock.sleep(FOREIGN_WRITE_DELAY).await;
                    if *self.withdrawn.borrow() { continue }
                    self.detect_foreign_write(&wanted, &profile.name).await;
                }
            }
        }
    }

    /// Writes what has changed since the last write. Returns whether it tried to write anything.
    async fn update(self: &Arc<Self>, wanted: &Wanted, failures: &mut u32, profile: &str) -> bool {
        let written = self.written.borrow().clone();
        // Keepers drop a token only when the user signs out; an expired one stays until it is replaced.
        if wanted.identity.is_none() && wanted.access.is_none() && written.access.is_some() {
            self.remove(profile).await;
            return false;
        }
        let outdated = Wanted {
            identity: wanted.identity.clone().filter(|token| written.identity != Some(token.hash())),
            access: wanted.access.clone().filter(|token| written.access != Some(token.hash())),
        };
        if outdated.identity.is_none() && outdated.access.is_none() {
            return false;
        }
        let (files, new) = (Arc::clone(self), outdated.clone());
        let outcome = blocking::run(move || files.write(&new)).await;
        let outcome = outcome.unwrap_or_else(|error| Err(error.to_string()));
        self.written.send_modify(|written| match &outcome {
            Ok(()) => {
                written.identity = outdated.identity.as_ref().map(|token| token.hash()).or(written.identity);
                written.access = outdated.access.as_ref().map(|token| token.hash()).or(written.access);
                written.error = None;
            }
            Err(error) => written.error = Some(error.as_str().into()),
        });
        match outcome {
            Ok(()) => {
                if *failures > 0 {
                    info!(profile, "the SDK files can be written again");
                }
                *failures = 0;
            }
            Err(error) => {
                if *failures == 0 {
                    warn!(profile, error, "cannot write the SDK files; the socket still serves tokens");
                }
                *failures = failures.saturating_add(1);
            }
        }
        true
    }

    fn write(&self, new: &Wanted) -> Result<(), String> {
        paths::private_dir(&self.dir).map_err(|error| error.to_string())?;
        let replace =
            |path: &Path, bytes: &[u8]| atomic_file::replace(path, bytes).map_err(|error| error.to_string());
        let origin = self.dir.join(ORIGIN);
        // Removed first: it must not vouch for a token that was made under another configuration.
        if new.access.is_some() || !self.is_ours() {
            let _ = std::fs::remove_file(&origin);
        }
        if let Some(token) = &new.identity {
            replace(&self.identity_token, token.bytes())?;
        }
        if let Some(token) = &new.access {
            let json = format::credentials(token, &self.base_url);
            replace(&self.credentials, &json)?;
            replace(&origin, self.fingerprint.as_bytes())?;
        }
        Ok(())
    }

    /// Removes the files. A program that uses them then fails as if they had never been there.
    async fn remove(self: &Arc<Self>, profile: &str) {
        let files = Arc::clone(self);
        let removed = blocking::run(move || {
            [ORIGIN, CREDENTIALS, IDENTITY_TOKEN].iter().try_for_each(|name| {
                match std::fs::remove_file(files.dir.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            })
        });
        if let Err(error) = removed.await.flatten() {
            warn!(profile, %error, dir = %self.dir.display(), "cannot remove the SDK files after signing out");
        }
        self.written.send_replace(Written::default());
    }

    /// Compares the files with what was written to them. If they differ, the next `update` writes again.
    async fn detect_foreign_write(self: &Arc<Self>, wanted: &Wanted, profile: &str) {
        let (files, wanted) = (Arc::clone(self), wanted.clone());
        let differs = blocking::run(move || {
            let differs = |path: &Path, wanted: &[u8]| {
                std::fs::read(path).map(Zeroizing::new).map_or(true, |found| *found != wanted)
            };
            let identity = wanted.identity.as_ref().map(Assertion::bytes);
            let access = wanted.access.as_ref().map(|token| format::credentials(token, &files.base_url));
            (
                identity.is_some_and(|jwt| differs(&files.identity_token, jwt)),
                access.is_some_and(|json| differs(&files.credentials, &json)),
            )
        });
        let Ok((identity, access)) = differs.await else { return };
        if identity || access {
            debug!(profile, identity, access, "another program changed the SDK files; writing them again");
            self.written.send_modify(|written| {
                written.identity = written.identity.filter(|_| !identity);
                written.access = written.access.filter(|_| !access);
            });
        }
    }
}

/// When to write again after so many failures in a row; never after none.
async fn retry(failures: u32, clock: &Clock) {
    match failures {
        0 => std::future::pending().await,
        n => drop(clock.sleep(RETRY.delay(n, None)).await),
    }
}

/// The content of a file, and how long ago it was written.
fn read_with_age(path: &Path, now: Now) -> Option<(Zeroizing<Vec<u8>>, Duration)> {
    let bytes = Zeroizing::new(std::fs::read(path).ok()?);
    let written = jiff::Timestamp::try_from(path.metadata().ok()?.modified().ok()?).ok()?;
    Some((bytes, Duration::try_from(now.wall.duration_since(written)).unwrap_or_default()))
}

fn lives<T: Expires>(restored: Option<Restored<T>>, now: Now) -> Option<Restored<T>> {
    restored.filter(|restored| restored.token.expiry().remaining(now) > MIN_RESTORED_LIFE)
}

/// What the files should hold. Their bytes are made from it for each write, so that no copy of a secret stays in memory.
#[derive(Clone)]
struct Wanted {
    identity: Option<Assertion>,
    access: Option<AccessToken>,
}

/// What the SDK would present if it made an exchange of its own.
#[derive(Clone)]
enum Assertion {
    Jwt(IdentityToken),
    /// The JWT stays with another daemon, which keeps the access token so fresh that the SDK never wants to.
    Relay,
}

impl Assertion {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Jwt(token) => format::identity_token(token),
            Self::Relay => format::RELAY.as_bytes(),
        }
    }

    fn hash(&self) -> TokenHash {
        match self {
            Self::Jwt(token) => token.hash(),
            Self::Relay => TokenHash::of(format::RELAY),
        }
    }
}

const ORIGIN: &str = "origin";

/// A token with less life is not worth serving after a restart.
const MIN_RESTORED_LIFE: Duration = Duration::from_secs(5);

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const FOREIGN_WRITE_DELAY: Duration = Duration::from_millis(200);
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Expiry;

    fn token(now: Now, life: u64) -> AccessToken {
        AccessToken::new("wb_at_x\"y".into(), Expiry::after(now, Duration::from_secs(life)))
    }

    #[test]
    fn what_was_written_is_restored_under_the_same_configuration_only() {
        let temp = tempfile::tempdir().expect("temp dir");
        let now = Clock::system().now();
        let url = BaseUrl::default();
        let files = |url: &BaseUrl, fingerprint: &str| {
            Files::new(temp.path().join("p"), url.clone(), fingerprint.into())
        };
        let new = Wanted { identity: None, access: Some(token(now, 3600)) };
        files(&url, "a").write(&new).expect("written");
        let restore = |files: Files, now| files.restore(now).access;
        let restored = restore(files(&url, "a"), now).expect("restored");
        assert_eq!(restored.token.hash(), token(now, 3600).hash());
        assert!(restored.token.expiry().remaining(now) <= Duration::from_secs(3600), "no longer than before");
        assert!(restore(files(&url, "b"), now).is_none(), "another configuration");
        let other = "https://wandb.acme.example".parse().expect("valid");
        assert!(restore(files(&other, "a"), now).is_none(), "another server");
        let later = Now { wall: now.wall + Duration::from_secs(3598), ..now };
        assert!(restore(files(&url, "a"), later).is_none(), "expired");
        std::fs::write(temp.path().join("p/credentials.json"), "{\"credentials\":{\"x").expect("written");
        assert!(restore(files(&url, "a"), now).is_none(), "half a file");
    }
}
