//! Stores a sign-in in the macOS Keychain: one generic password per key.

use security_framework::passwords::{delete_generic_password, get_generic_password, set_generic_password};

use super::{Key, Presence, failed, locked};
use crate::blocking;
use crate::error::Error;
use crate::token::Secret;

/// The user's default keychain.
#[derive(Clone, Debug)]
pub(super) struct Keyring;

impl Keyring {
    pub(super) async fn load(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let account = key.short();
        call(move || match get_generic_password(SERVICE, &account) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.code() == ITEM_NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    pub(super) async fn save(
        &self,
        key: &Key,
        value: &Secret<String>,
        _presence: Presence,
    ) -> Result<(), Error> {
        let (account, value) = (key.short(), value.clone());
        call(move || set_generic_password(SERVICE, &account, value.expose().as_bytes())).await
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), Error> {
        let account = key.short();
        call(move || match delete_generic_password(SERVICE, &account) {
            Err(error) if error.code() != ITEM_NOT_FOUND => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

/// The Keychain's functions block and may show a prompt, so they run off the daemon's thread.
async fn call<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, security_framework::base::Error> + Send + 'static,
) -> Result<T, Error> {
    let result = blocking::run(call).await;
    let result = result.map_err(|error| failed(format!("cannot ask the Keychain now: {error}")))?;
    result.map_err(|error| match error.code() {
        INTERACTION_NOT_ALLOWED | AUTH_FAILED | USER_CANCELED => {
            locked("the Keychain is locked or denied access; run: security unlock-keychain")
        }
        code => failed(format!("the Keychain failed: {error} ({code})")),
    })
}

const SERVICE: &str = "wandb-cred";

// SecBase.h
const ITEM_NOT_FOUND: i32 = -25300;
const INTERACTION_NOT_ALLOWED: i32 = -25308;
const AUTH_FAILED: i32 = -25293;
const USER_CANCELED: i32 = -128;
