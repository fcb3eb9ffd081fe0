//! Where a sign-in is stored between runs of the daemon: the OS keyring, the kernel's keyring, or a file.
//!
//! `oidc::Session` is the only reader and writer. The configuration chooses the store, and it never changes by itself: a
//! keyring that is locked, slow or missing is an error that says so, not a reason to write a secret somewhere else. No
//! call here waits for a person, unless the caller says that one is there ([`Presence::Person`]).

use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::blocking;
use crate::clock::Clock;
use crate::env::Env;
use crate::error::{self, Error, Reason, Stage};
use crate::token::Secret;
use crate::{atomic_file, paths};

mod file;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg_attr(target_os = "macos", path = "secrets/keychain.rs")]
mod keyring;
mod lock;

pub use lock::Lock;

/// `token-store`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Secret Service on Linux (GNOME Keyring, KWallet, KeePassXC), Keychain on macOS.
    #[default]
    Keyring,
    /// The Linux kernel's persistent keyring: in memory only, gone after a reboot or three days without use.
    Kernel,
    /// A 0600 file in a 0700 folder.
    File,
}

/// Identifies one secret. A profile that changes its issuer or client does not find the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub profile: String,
    pub issuer: String,
    pub client_id: String,
}

impl Key {
    /// A short name that is safe for file names and key descriptions.
    fn short(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.profile, &self.issuer, &self.client_id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let suffix = &format!("{:x}", hash.finalize())[..16];
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let profile: String = self.profile.chars().take(40).map(safe).collect();
        format!("{profile}-{suffix}")
    }
}

/// Whether a person is there to answer a prompt of the keyring's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A locked keyring is an error at once.
    Nobody,
    /// During a sign-in: the keyring may ask the person to unlock it.
    Person,
}

/// The configured store, and the locks of the sessions in it.
#[derive(Clone, Debug)]
pub struct Store {
    place: Place,
    locks: lock::Locks,
}

#[derive(Clone, Debug)]
enum Place {
    Keyring(keyring::Keyring),
    #[cfg(target_os = "linux")]
    Kernel,
    File(file::Folder),
}

/// Room for a new secret, made before the old one is spent.
#[derive(Debug)]
pub struct Prepared(Option<atomic_file::Prepared>);

impl Store {
    /// Does not access the store yet.
    pub fn new(kind: Kind, env: &Env) -> Result<Self, Error> {
        let (state, home) = (paths::state_dir(env), paths::home_state_dir(env));
        // Beside the session, if it is a file. A keyring is the same one for processes that differ in XDG_STATE_HOME.
        let beside = if kind == Kind::File { state.as_ref() } else { home.as_ref() };
        // A home folder may lie on a file system that cannot lock, or that is read-only.
        let folders = beside.ok().cloned().into_iter().chain([paths::runtime_base(env)]);
        let locks = lock::Locks::new(folders.map(|dir| dir.join("locks")).collect());
        let place = match kind {
            Kind::Keyring => Place::Keyring(keyring::Keyring),
            #[cfg(target_os = "linux")]
            Kind::Kernel => Place::Kernel,
            #[cfg(not(target_os = "linux"))]
            Kind::Kernel => {
                return Err(failed("token-store = \"kernel\" works only on Linux; use \"keyring\""));
            }
            Kind::File => {
                let state = state.map_err(failed)?;
                Place::File(file::Folder(state.join("sessions")))
            }
        };
        Ok(Self { place, locks })
    }

    /// Waits until no other process uses this session. To be taken before the store is read, and held until what was
    /// redeemed is in it.
    pub async fn lock(&self, key: &Key, clock: &Clock) -> Result<Lock, Error> {
        self.locks.acquire(key, clock).await
    }

    /// The secret, or `None` if the store is accessible and has none.
    pub async fn load(&self, key: &Key) -> Result<Option<Secret<String>>, Error> {
        let bytes = match &self.place {
            Place::Keyring(keyring) => bounded(Presence::Nobody, keyring.load(key)).await?,
            #[cfg(target_os = "linux")]
            Place::Kernel => kernel::load(key)?,
            Place::File(folder) => blocking(folder, key, |folder, key| folder.load(&key)).await?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        String::from_utf8(bytes).map(|text| Some(Secret::new(text))).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            failed(format!("the {} holds something that is not UTF-8", self.name()))
        })
    }

    /// Whether a first secret can be stored, as far as can be told. A keyring that is locked counts as usable: a person is
    /// there to unlock it.
    pub async fn check(&self, key: &Key) -> Result<(), Error> {
        match &self.place {
            Place::File(folder) => {
                blocking(folder, key, |folder, key| folder.prepare(&key, GROWTH)).await.map(drop)
            }
            _ => match self.load(key).await {
                Err(error) if error.reason != Reason::StoreLocked => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Proves that a successor of `current` can be stored, by storing as much: a file of that size beside the session's,
    /// or the same secret again, with as much white space behind it as a longer successor may need.
    pub async fn prepare(&self, key: &Key, current: &Secret<String>) -> Result<Prepared, Error> {
        let size = current.expose().len() + GROWTH;
        match &self.place {
            Place::File(folder) => {
                let prepared = blocking(folder, key, move |folder, key| folder.prepare(&key, size)).await?;
                Ok(Prepared(Some(prepared)))
            }
            _ => {
                let mut padded = String::with_capacity(size);
                padded.push_str(current.expose());
                padded.extend(std::iter::repeat_n(' ', GROWTH));
                self.save(key, &Secret::new(padded), Presence::Nobody).await?;
                Ok(Prepared(None))
            }
        }
    }

    /// Replaces the secret, in the room that was made for it.
    pub async fn commit(&self, prepared: Prepared, key: &Key, value: &Secret<String>) -> Result<(), Error> {
        match (&self.place, prepared.0) {
            (Place::File(folder), Some(prepared)) => {
                let value = value.clone();
                let commit = move |_, _| prepared.commit(value.expose().as_bytes()).map_err(failed);
                blocking(folder, key, commit).await
            }
            _ => self.save(key, value, Presence::Nobody).await,
        }
    }

    /// Replaces the secret. Returns once the store has confirmed it.
    pub async fn save(&self, key: &Key, value: &Secret<String>, presence: Presence) -> Result<(), Error> {
        match &self.place {
            Place::Keyring(keyring) => bounded(presence, keyring.save(key, value, presence)).await,
            #[cfg(target_os = "linux")]
            Place::Kernel => kernel::save(key, value),
            Place::File(folder) => {
                let value = value.clone();
                blocking(folder, key, move |folder, key| folder.save(&key, &value)).await
            }
        }
    }

    /// Removes the secret, if there is one.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        match &self.place {
            Place::Keyring(keyring) => bounded(Presence::Nobody, keyring.delete(key)).await,
            #[cfg(target_os = "linux")]
            Place::Kernel => kernel::delete(key),
            Place::File(folder) => blocking(folder, key, |folder, key| folder.delete(&key)).await,
        }
    }

    /// For messages.
    pub fn name(&self) -> &'static str {
        match &self.place {
            Place::Keyring(_) => "keyring",
            #[cfg(target_os = "linux")]
            Place::Kernel => "kernel keyring",
            Place::File(_) => "session file",
        }
    }
}

/// Treats a keyring that does not answer as locked: it may be showing a prompt that nobody sees.
async fn bounded<T>(presence: Presence, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let timeout = match presence {
        Presence::Nobody => ANSWER_TIMEOUT,
        Presence::Person => PROMPT_TIMEOUT,
    };
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
        Err(locked(format!(
            "the keyring did not answer within {} s; it may be waiting to be unlocked",
            timeout.as_secs()
        )))
    })
}

async fn blocking<T: Send + 'static>(
    folder: &file::Folder,
    key: &Key,
    call: impl FnOnce(file::Folder, Key) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (folder, key) = (folder.clone(), key.clone());
    let called = blocking::run(move || call(folder, key)).await;
    called.map_err(|error| failed(format!("cannot access the session file now: {error}"))).flatten()
}

/// Locked, or so slow that it may be. It works once a person has unlocked it.
fn locked(message: impl Into<String>) -> Error {
    Error::new(Stage::SignIn, error::Kind::Transient, Reason::StoreLocked, message)
}

/// This machine has no such store, it does not run, or it answered with an error. That it holds no secret is no error.
fn failed(message: impl ToString) -> Error {
    Error::new(Stage::SignIn, error::Kind::Transient, Reason::StoreUnavailable, message.to_string())
}

/// How much longer a secret may be than the one before it.
const GROWTH: usize = 2048;

/// gnome-keyring answers in milliseconds; a store that asks its user first does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to type the keyring's password.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(profile: &str, issuer: &str, client_id: &str) -> Key {
        Key { profile: profile.into(), issuer: issuer.into(), client_id: client_id.into() }
    }

    #[test]
    fn processes_that_share_a_keyring_share_its_locks_whatever_their_state_folder() {
        let locks = |kind, state: &str| {
            let env = Env::fixed([("HOME", "/h"), ("XDG_STATE_HOME", state), ("XDG_RUNTIME_DIR", "/r")]);
            format!("{:?}", Store::new(kind, &env).expect("a store").locks)
        };
        assert_eq!(locks(Kind::Keyring, "/a"), locks(Kind::Keyring, "/b"));
        assert_ne!(locks(Kind::File, "/a"), locks(Kind::File, "/b"), "these are two sessions");
    }

    fn store_in(dir: &std::path::Path) -> Store {
        let dir = dir.to_str().expect("UTF-8");
        Store::new(Kind::File, &Env::fixed([("XDG_STATE_HOME", dir), ("HOME", dir)])).expect("a folder")
    }

    #[test]
    fn every_part_of_the_key_counts_and_parts_cannot_run_together() {
        let names = [key("p", "i", "c"), key("q", "i", "c"), key("p", "ic", ""), key("p", "i", "d")]
            .map(|key| key.short());
        for (i, name) in names.iter().enumerate() {
            assert!(!names[i + 1..].contains(name), "{name}");
        }
        assert!(!key("../x", "i", "c").short().contains(['.', '/']));
    }

    #[tokio::test]
    async fn a_file_keeps_what_was_saved_until_deleted() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (store, key) = (store_in(temp.path()), key("work", "https://idp", "cli"));
        assert!(store.load(&key).await.expect("open").is_none());
        for value in ["one", "two"] {
            store.save(&key, &Secret::new(value.to_owned()), Presence::Nobody).await.expect("saved");
            let found = store.load(&key).await.expect("open").expect("there");
            assert_eq!(found.expose(), value);
        }
        store.delete(&key).await.expect("deleted");
        store.delete(&key).await.expect("deleting nothing is fine");
        assert!(store.load(&key).await.expect("open").is_none());
    }

    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().expect("temp dir");
        let (store, key) = (store_in(temp.path()), key("work", "https://idp", "cli"));
        store.save(&key, &Secret::new("x".to_owned()), Presence::Nobody).await.expect("saved");
        let file = std::fs::read_dir(temp.path().join("wandb-cred/sessions")).expect("dir");
        let file = file.map(|entry| entry.expect("entry").path()).next().expect("one file");
        let mode = file.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("chmod");
        let refused = store.load(&key).await.expect_err("loose").to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_locked_not_absent() {
        let never = std::future::pending::<Result<Option<Vec<u8>>, Error>>();
        let error = bounded(Presence::Nobody, never).await.expect_err("never");
        assert_eq!(error.reason, Reason::StoreLocked);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_keeps_a_secret_too() {
        let store = Store::new(Kind::Kernel, &Env::fixed::<&str, &str>([])).expect("Linux");
        let key = key("test", "https://idp", &format!("pid-{}", std::process::id()));
        match store.load(&key).await {
            Err(error) => return println!("skipped: {error}"),
            found => assert!(found.expect("open").is_none()),
        }
        store.save(&key, &Secret::new("one".to_owned()), Presence::Nobody).await.expect("saved");
        store.save(&key, &Secret::new("two".to_owned()), Presence::Nobody).await.expect("replaced");
        assert_eq!(store.load(&key).await.expect("open").expect("there").expose(), "two");
        store.delete(&key).await.expect("deleted");
        assert!(store.load(&key).await.expect("open").is_none());
    }
}
