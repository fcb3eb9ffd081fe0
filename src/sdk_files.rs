//! The two files that an unmodified W&B SDK reads: `identity-token` and `credentials.json`.
//!
//! One task per profile follows both keepers and writes what changed: a new file beside the old one, synced,
//! then renamed over it, so that a reader sees the old or the new and never a part. A write that fails is
//! reported and tried again, and holds up nobody. Somebody else's rewrite (the SDK's own, when it exchanged
//! by itself) is noticed and repaired. What the SDK demands of these files is told in ARCHITECTURE.md.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::clock::{Clock, Now};
use crate::paths;
use crate::profile::{BaseUrl, Profile};
use crate::token::{AccessToken, Expires as _, Expiry, IdentityToken, TokenHash};

mod changes;

/// Where one profile's files are, and how their last write went.
pub struct Files {
    pub identity_token: PathBuf,
    pub credentials: PathBuf,
    dir: PathBuf,
    base_url: BaseUrl,
    /// Names the configuration that the files were made under, so that a restart can trust them.
    fingerprint: String,
    written: watch::Sender<Written>,
}

/// What is on disk now.
#[derive(Clone, Debug, Default, PartialEq)]
struct Written {
    identity: Option<TokenHash>,
    access: Option<TokenHash>,
    error: Option<Arc<str>>,
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
        }
    }

    /// Why the last write failed.
    pub fn error(&self) -> Option<Arc<str>> {
        self.written.borrow().error.clone()
    }

    /// Waits until both files exist and `credentials.json` holds the token with this hash (or a later one),
    /// or a write fails.
    pub async fn hold(&self, token: TokenHash) -> Result<(), Arc<str>> {
        let mut written = self.written.subscribe();
        let stale = written.borrow().clone();
        let ready = written.wait_for(|now| {
            let moved_on = now.access != stale.access;
            (now.identity.is_some() && (now.access == Some(token) || (moved_on && now.access.is_some())))
                || (now.error.is_some() && *now != stale)
        });
        match tokio::time::timeout(WRITE_PATIENCE, ready).await {
            Ok(Ok(written)) => written.error.clone().map_or(Ok(()), Err),
            Ok(Err(_)) => Err("the daemon is stopping".into()),
            Err(_) => Err(self.error().unwrap_or_else(|| "writing the SDK files takes too long".into())),
        }
    }

    /// The access token that an earlier daemon left here, if it was made under the same configuration and
    /// still lives: a restart serves at once.
    pub fn restore(&self, now: Now) -> Option<AccessToken> {
        paths::check_private(&self.dir).ok()?;
        remove_leftovers(&self.dir);
        if std::fs::read_to_string(self.dir.join(ORIGIN)).ok()? != self.fingerprint {
            return None;
        }
        let text = Zeroizing::new(std::fs::read(&self.credentials).ok()?);
        let parsed: Credentials = serde_json::from_slice(&text).ok()?;
        let entry = parsed.credentials.into_iter().find(|(key, _)| key == self.base_url.as_str())?.1;
        let expires_at = jiff::civil::DateTime::strptime(EXPIRES_AT, &entry.expires_at).ok()?;
        let expires_at = expires_at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        let expiry = Expiry::at(expires_at, now);
        (expiry.remaining(now) > WORTH_RESTORING).then(|| AccessToken::new(entry.access_token, expiry))
    }

    /// Keeps the files in step with the keepers. Ends only when its task is aborted.
    pub async fn run(self: Arc<Self>, profile: Arc<Profile>, clock: Clock) {
        let mut identity = profile.identity.subscribe();
        let mut access = profile.access.subscribe();
        // What was restored is on disk already, and its identity token beside it.
        if let Some(restored) = access.borrow().token.as_ref().map(AccessToken::hash) {
            let identity = std::fs::read_to_string(&self.identity_token).ok();
            self.written.send_modify(|written| {
                written.access = Some(restored);
                written.identity = identity.map(|jwt| TokenHash::of(&jwt));
            });
        }
        let mut watcher = changes::Watcher::new();
        let mut failures = 0;
        loop {
            let want = Wanted {
                identity: identity.borrow_and_update().token.clone(),
                access: access.borrow_and_update().token.clone(),
            };
            let wrote = self.bring_up_to_date(&want, &mut failures, &profile.name).await;
            if wrote {
                watcher.watch(&self.dir);
            }
            let retry = async {
                match failures {
                    0 => std::future::pending().await,
                    n => clock.sleep(RETRY.delay(n, None)).await,
                }
            };
            tokio::select! {
                changed = identity.changed() => if changed.is_err() { return },
                changed = access.changed() => if changed.is_err() { return },
                _ = retry => {}
                () = watcher.changed() => {
                    // The SDK truncates and then writes: let it finish before looking.
                    let _ = clock.sleep(SETTLE).await;
                    self.forget_if_foreign(&want, &profile.name).await;
                }
            }
        }
    }

    /// Writes what differs from what was written; true if anything was.
    async fn bring_up_to_date(self: &Arc<Self>, want: &Wanted, failures: &mut u32, profile: &str) -> bool {
        let written = self.written.borrow().clone();
        // Keepers forget a token only when its owner signs out; one that expires stays until the next comes.
        if want.identity.is_none() && want.access.is_none() && written.access.is_some() {
            self.clear(profile).await;
            return false;
        }
        let outdated = Wanted {
            identity: want.identity.clone().filter(|token| written.identity != Some(token.hash())),
            access: want.access.clone().filter(|token| written.access != Some(token.hash())),
        };
        if outdated.identity.is_none() && outdated.access.is_none() {
            return false;
        }
        let (files, new) = (Arc::clone(self), outdated.clone());
        let outcome = tokio::task::spawn_blocking(move || files.write(&new)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("the write was cut short".to_owned()));
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
                    info!(profile, "SDK files are written again");
                }
                *failures = 0;
            }
            Err(error) => {
                if *failures == 0 {
                    warn!(
                        profile,
                        error, "cannot write the SDK files; tokens are served on the socket all the same"
                    );
                }
                *failures = failures.saturating_add(1);
            }
        }
        true
    }

    fn write(&self, new: &Wanted) -> Result<(), String> {
        paths::private_dir(&self.dir).map_err(|error| error.to_string())?;
        let put = |name: &str, bytes: &[u8]| {
            replace(&self.dir, name, bytes)
                .map_err(|error| format!("cannot write {}: {error}", self.dir.join(name).display()))
        };
        if let Some(token) = &new.identity {
            put(IDENTITY_TOKEN, identity_token(token))?;
        }
        if let Some(token) = &new.access {
            let json = credentials_json(token, &self.base_url);
            // Taken away first: between the two writes the old claim must not cover the new token.
            let _ = std::fs::remove_file(self.dir.join(ORIGIN));
            put(CREDENTIALS, &json)?;
            put(ORIGIN, self.fingerprint.as_bytes())?;
        }
        Ok(())
    }

    /// Takes the files away. A program that uses them then fails as if it had never been given any.
    async fn clear(self: &Arc<Self>, profile: &str) {
        let files = Arc::clone(self);
        let removed = tokio::task::spawn_blocking(move || {
            [ORIGIN, CREDENTIALS, IDENTITY_TOKEN].iter().try_for_each(|name| {
                match std::fs::remove_file(files.dir.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            })
        });
        if let Ok(Err(error)) = removed.await {
            warn!(profile, %error, dir = %self.dir.display(), "cannot remove the SDK files of a session that has ended");
        }
        self.written.send_replace(Written::default());
    }

    /// Compares the disk with what was written there; a difference makes the next round write again.
    async fn forget_if_foreign(self: &Arc<Self>, want: &Wanted, profile: &str) {
        let (files, want) = (Arc::clone(self), want.clone());
        let differs = tokio::task::spawn_blocking(move || {
            let differs = |path: &Path, wanted: &[u8]| {
                std::fs::read(path).map(Zeroizing::new).map_or(true, |found| *found != wanted)
            };
            let identity = want.identity.as_ref().map(identity_token);
            let access = want.access.as_ref().map(|token| credentials_json(token, &files.base_url));
            (
                identity.is_some_and(|jwt| differs(&files.identity_token, jwt)),
                access.is_some_and(|json| differs(&files.credentials, &json)),
            )
        });
        let Ok((identity, access)) = differs.await else { return };
        if identity || access {
            debug!(profile, identity, access, "somebody else changed the SDK files, writing them again");
            self.written.send_modify(|written| {
                written.identity = written.identity.filter(|_| !identity);
                written.access = written.access.filter(|_| !access);
            });
        }
    }
}

/// What the files should hold. What is written is made of it anew each time, so that no copy of a secret stays behind.
#[derive(Clone)]
struct Wanted {
    identity: Option<IdentityToken>,
    access: Option<AccessToken>,
}

/// The bare JWT, without a newline: SDKs up to 0.28.0 send the file's content as it is.
fn identity_token(token: &IdentityToken) -> &[u8] {
    token.jwt().expose().as_bytes()
}

/// The SDK's own format, nothing more: one malformed or unknown thing and it exchanges by itself.
#[derive(Serialize, Deserialize)]
struct Credentials {
    credentials: std::collections::BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    expires_at: String,
    access_token: String,
}

fn credentials_json(token: &AccessToken, base_url: &BaseUrl) -> Zeroizing<Vec<u8>> {
    let entry = || Entry {
        expires_at: expires_at(token.expiry().wall()),
        access_token: token.secret().expose().clone(),
    };
    let credentials = base_url.spellings().into_iter().map(|key| (key.to_owned(), entry())).collect();
    serde_json::to_vec(&Credentials { credentials }).expect("strings always serialise").into()
}

/// UTC without zone or fraction (Go reads fractions, Python does not), rounded down.
fn expires_at(at: Timestamp) -> String {
    at.strftime(EXPIRES_AT).to_string()
}

/// A new file of mode 0600 in the place of `name`, whole or not at all.
pub fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(LEFTOVER).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(dir.join(name)).map_err(|error| error.error)?;
    // The rename itself must survive a power cut too.
    std::fs::File::open(dir)?.sync_all()
}

/// Half-written files of a daemon that was killed.
fn remove_leftovers(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(LEFTOVER) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

const IDENTITY_TOKEN: &str = "identity-token";
const CREDENTIALS: &str = "credentials.json";
const ORIGIN: &str = "origin";
const LEFTOVER: &str = ".writing-";
const EXPIRES_AT: &str = "%Y-%m-%d %H:%M:%S";

/// A token with less life is not worth serving after a restart.
const WORTH_RESTORING: Duration = Duration::from_secs(5);

const WRITE_PATIENCE: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_millis(200);
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };

#[cfg(test)]
mod tests {
    use super::*;

    fn token(now: Now, life: u64) -> AccessToken {
        AccessToken::new("wb_at_x\"y".into(), Expiry::after(now, Duration::from_secs(life)))
    }

    #[test]
    fn credentials_are_exactly_the_sdks_format() {
        let wall = "2026-11-21T19:54:13.987Z".parse().expect("a time");
        let now = Now { wall, boot: Duration::from_secs(1), skew: 0 };
        let json = credentials_json(&token(now, 3600), &BaseUrl::default());
        let want = r#"{"credentials":{"https://api.forge.coreweave.com":{"expires_at":"2026-11-21 20:54:13","access_token":"wb_at_x\"y"},"https://api.wandb.ai":{"expires_at":"2026-11-21 20:54:13","access_token":"wb_at_x\"y"}}}"#;
        assert_eq!(std::str::from_utf8(&json), Ok(want));
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
        let restored = files(&url, "a").restore(now).expect("restored");
        assert_eq!(restored.hash(), token(now, 3600).hash());
        assert!(restored.expiry().remaining(now) <= Duration::from_secs(3600), "never longer than it was");
        assert!(files(&url, "b").restore(now).is_none(), "another configuration");
        let other = "https://wandb.acme.example".parse().expect("valid");
        assert!(files(&other, "a").restore(now).is_none(), "another server");
        let later = Now { wall: now.wall + Duration::from_secs(3598), ..now };
        assert!(files(&url, "a").restore(later).is_none(), "expired");
        std::fs::write(temp.path().join("p/credentials.json"), "{\"credentials\":{\"x").expect("written");
        assert!(files(&url, "a").restore(now).is_none(), "half a file");
    }

    #[test]
    fn replaced_files_are_private_and_leave_nothing_behind() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join(".writing-old"), "x").expect("written");
        std::fs::write(temp.path().join("f"), "old").expect("written");
        remove_leftovers(temp.path());
        replace(temp.path(), "f", b"new").expect("replaced");
        let mode = temp.path().join("f").metadata().expect("there").permissions().mode();
        let names: Vec<_> = std::fs::read_dir(temp.path()).expect("listed").flatten().collect();
        assert_eq!((mode & 0o777, names.len()), (0o600, 1));
    }
}
