//! Stores a sign-in in this user's persistent keyring in the Linux kernel (keyrings(7), persistent-keyring(7)).
//!
//! It is never written to disk, survives logging out, and is gone after a reboot or three days without use. These are
//! plain system calls, so nothing here blocks.

use linux_keyutils::{Key as KernelKey, KeyError, KeyRing, KeyRingIdentifier};

use super::{Key, failed};
use crate::error::Error;
use crate::token::Secret;

pub(super) fn load(key: &Key) -> Result<Option<Vec<u8>>, Error> {
    match find(ring()?, key)? {
        Some(found) => found.read_to_vec().map(Some).map_err(call_failed),
        None => Ok(None),
    }
}

pub(super) fn save(key: &Key, value: &Secret<String>) -> Result<(), Error> {
    // If there is a key with this description, this replaces its value atomically.
    ring()?.add_key(&description(key), value.expose()).map(drop).map_err(call_failed)
}

pub(super) fn delete(key: &Key) -> Result<(), Error> {
    let ring = ring()?;
    match find(ring, key)? {
        Some(found) => {
            // Unlinking takes effect at once; after invalidation alone a search could still find the key.
            ring.unlink_key(found).map_err(call_failed)?;
            let _ = found.invalidate();
            Ok(())
        }
        None => Ok(()),
    }
}

/// The persistent keyring, linked to the process keyring. The link makes this process "possess" the keys, so that it may
/// read them, and leaves the user's session keyring alone. Every call gets it again, because that also postpones its
/// expiry, and because each thread has credentials of its own.
fn ring() -> Result<KeyRing, Error> {
    KeyRing::get_persistent(KeyRingIdentifier::Process).map_err(|error| {
        failed(format!(
            "this kernel or container has no persistent keyring ({error:?}); set token-store to \"keyring\" or \"file\""
        ))
    })
}

fn find(ring: KeyRing, key: &Key) -> Result<Option<KernelKey>, Error> {
    match ring.search(&description(key)) {
        Ok(found) => Ok(Some(found)),
        Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => Ok(None),
        Err(error) => Err(call_failed(error)),
    }
}

fn description(key: &Key) -> String {
    format!("wandb-cred:{}", key.short())
}

fn call_failed(error: KeyError) -> Error {
    failed(format!("the kernel keyring failed: {error:?}"))
}
