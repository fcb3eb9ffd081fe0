//! A sign-in in the Linux kernel's keyring of this user (keyrings(7), persistent-keyring(7)).
//!
//! It never touches a disk, outlives logging out, and is gone after a reboot or three days without use.
//! System calls only, so nothing here blocks.

use linux_keyutils::{Key as KernelKey, KeyError, KeyRing, KeyRingIdentifier};

use super::{Error, Key};
use crate::token::Secret;

pub(super) fn load(key: &Key) -> Result<Option<Vec<u8>>, Error> {
    match find(ring()?, key)? {
        Some(found) => found.read_to_vec().map(Some).map_err(failed),
        None => Ok(None),
    }
}

pub(super) fn save(key: &Key, value: &Secret<String>) -> Result<(), Error> {
    // Replaces the value of a key with the same description, atomically.
    ring()?.add_key(&description(key), value.expose()).map(drop).map_err(failed)
}

pub(super) fn delete(key: &Key) -> Result<(), Error> {
    let ring = ring()?;
    match find(ring, key)? {
        Some(found) => {
            // Unlinking is at once; invalidation alone leaves a key that a look-up can still meet.
            ring.unlink_key(found).map_err(failed)?;
            let _ = found.invalidate();
            Ok(())
        }
        None => Ok(()),
    }
}

/// The persistent keyring, linked to this thread's process keyring: whoever holds the link "possesses" the
/// keys and may read them, and the user's session keyring stays as it is. Asked for anew on every call,
/// because that also puts off its expiry, and because another thread has other credentials.
fn ring() -> Result<KeyRing, Error> {
    KeyRing::get_persistent(KeyRingIdentifier::Process).map_err(|error| {
        Error::Unavailable(format!(
            "this kernel or container gives no persistent keyring ({error:?}); set token-store to \"keyring\" or \"file\""
        ))
    })
}

fn find(ring: KeyRing, key: &Key) -> Result<Option<KernelKey>, Error> {
    match ring.search(&description(key)) {
        Ok(found) => Ok(Some(found)),
        Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn description(key: &Key) -> String {
    format!("wandb-cred:{}", key.short())
}

fn failed(error: KeyError) -> Error {
    Error::Failed(format!("the kernel keyring refuses: {error:?}"))
}
