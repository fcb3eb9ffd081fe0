//! Stores a sign-in in the desktop's keyring: freedesktop.org's Secret Service, over D-Bus.
//!
//! Connects for each call and disconnects after it, so that an idle daemon has no bus connection. The secret crosses the
//! bus in the "plain" form. The bus is a Unix socket between processes of one user, and any of them can ask the keyring
//! for the secret, so encrypting it there would hide it from nobody.

use std::collections::HashMap;

use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};
use zbus::{Connection, Message};

use super::{Key, Presence, failed};
use crate::error::Error;
use crate::token::Secret;

/// The Secret Service on the session bus.
#[derive(Clone, Debug)]
pub(super) struct Keyring;

impl Keyring {
    pub(super) async fn load(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let service = Service::connect().await?;
        let found = service.search(key).await?;
        let Some(item) = found.unlocked.first() else {
            if found.locked.is_empty() {
                return Ok(None);
            }
            return Err(locked());
        };
        let (.., value, _) = service.secret(item).await?;
        Ok(Some(value))
    }

    pub(super) async fn save(
        &self,
        key: &Key,
        value: &Secret<String>,
        presence: Presence,
    ) -> Result<(), Error> {
        let service = Service::connect().await?;
        let collection = service.default_collection().await?;
        if presence == Presence::Person {
            service.unlock(&collection).await?;
        }
        service.create(&collection, key, value).await
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), Error> {
        let service = Service::connect().await?;
        let found = service.search(key).await?;
        if !found.locked.is_empty() {
            return Err(locked());
        }
        for item in &found.unlocked {
            let reply = service.call(item, "Item", "Delete", &()).await?;
            let prompt: OwnedObjectPath = reply.body().deserialize().map_err(invalid)?;
            if prompt.as_str() != "/" {
                return Err(locked());
            }
        }
        Ok(())
    }
}

/// One bus connection with one Secret Service session on it.
struct Service {
    bus: Connection,
    session: OwnedObjectPath,
}

struct Found {
    unlocked: Vec<OwnedObjectPath>,
    locked: Vec<OwnedObjectPath>,
}

/// The specification's `Secret` struct: session, parameters, value, content type.
type SecretStruct = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

impl Service {
    async fn connect() -> Result<Self, Error> {
        let bus = Connection::session()
            .await
            .map_err(|_| failed(format!("there is no D-Bus session bus, so no keyring; {ALTERNATIVE}")))?;
        let service = Self { bus, session: OwnedObjectPath::default() };
        let reply = service.call(&root(), "Service", "OpenSession", &("plain", Value::from(""))).await?;
        let (_, session): (OwnedValue, OwnedObjectPath) = reply.body().deserialize().map_err(invalid)?;
        Ok(Self { session, ..service })
    }

    async fn search(&self, key: &Key) -> Result<Found, Error> {
        let reply = self.call(&root(), "Service", "SearchItems", &(attributes(key),)).await?;
        let (unlocked, locked) = reply.body().deserialize().map_err(invalid)?;
        Ok(Found { unlocked, locked })
    }

    async fn secret(&self, item: &OwnedObjectPath) -> Result<SecretStruct, Error> {
        let reply = self.call(item, "Item", "GetSecret", &(&self.session,)).await?;
        reply.body().deserialize().map_err(invalid)
    }

    async fn default_collection(&self) -> Result<OwnedObjectPath, Error> {
        let reply = self.call(&root(), "Service", "ReadAlias", &("default",)).await?;
        let path: OwnedObjectPath = reply.body().deserialize().map_err(invalid)?;
        if path.as_str() == "/" {
            return Err(failed(format!(
                "the keyring has no default collection; create one with your desktop's keyring tool, or {ALTERNATIVE}"
            )));
        }
        Ok(path)
    }

    /// Unlocks a collection, waiting for the keyring's own prompt if it shows one.
    async fn unlock(&self, collection: &OwnedObjectPath) -> Result<(), Error> {
        let reply = self.call(&root(), "Service", "Unlock", &(vec![collection],)).await?;
        let (_, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) =
            reply.body().deserialize().map_err(invalid)?;
        if prompt.as_str() == "/" {
            return Ok(());
        }
        let proxy = zbus::Proxy::new(&self.bus, NAME, prompt, "org.freedesktop.Secret.Prompt");
        let proxy = proxy.await.map_err(|error| call_failed(&error))?;
        let mut completed = proxy.receive_signal("Completed").await.map_err(|error| call_failed(&error))?;
        proxy.call_method("Prompt", &("",)).await.map_err(|error| call_failed(&error))?;
        let next = std::future::poll_fn(|cx| {
            zbus::export::futures_core::Stream::poll_next(std::pin::Pin::new(&mut completed), cx)
        });
        let Some(message) = next.await else { return Err(locked()) };
        let (dismissed, _): (bool, OwnedValue) = message.body().deserialize().map_err(invalid)?;
        if dismissed { Err(locked()) } else { Ok(()) }
    }

    async fn create(
        &self,
        collection: &OwnedObjectPath,
        key: &Key,
        value: &Secret<String>,
    ) -> Result<(), Error> {
        let label = format!("wandb-cred sign-in for profile {}", key.profile);
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Value::from(label)),
            ("org.freedesktop.Secret.Item.Attributes", Value::from(attributes(key))),
        ]);
        let secret = (&self.session, &[][..] as &[u8], value.expose().as_bytes(), "application/json");
        let replace = true;
        let reply = self.call(collection, "Collection", "CreateItem", &(properties, secret, replace)).await?;
        let (item, _): (OwnedObjectPath, OwnedObjectPath) = reply.body().deserialize().map_err(invalid)?;
        // "/" means that the user must answer a prompt first, so nothing is stored yet.
        if item.as_str() == "/" { Err(locked()) } else { Ok(()) }
    }

    async fn call<B: serde::Serialize + zbus::zvariant::DynamicType>(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, Error> {
        let interface = format!("org.freedesktop.Secret.{interface}");
        let call = self.bus.call_method(Some(NAME), path, Some(interface.as_str()), method, body);
        call.await.map_err(|error| call_failed(&error))
    }
}

fn attributes(key: &Key) -> HashMap<&'static str, &str> {
    HashMap::from([
        ("application", "wandb-cred"),
        ("profile", key.profile.as_str()),
        ("issuer", key.issuer.as_str()),
        ("client-id", key.client_id.as_str()),
    ])
}

fn root() -> OwnedObjectPath {
    ObjectPath::from_static_str_unchecked("/org/freedesktop/secrets").into()
}

fn locked() -> Error {
    super::locked("the keyring is locked; unlock it with your desktop's keyring tool")
}

fn invalid(error: zbus::Error) -> Error {
    failed(format!("the keyring's answer does not follow the Secret Service specification: {error}"))
}

fn call_failed(error: &zbus::Error) -> Error {
    if let zbus::Error::MethodError(name, ..) = error {
        return match name.as_str() {
            "org.freedesktop.Secret.Error.IsLocked" => locked(),
            "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
                failed(format!("no Secret Service runs on the session bus; {ALTERNATIVE}"))
            }
            name => failed(format!("the keyring failed: {name}")),
        };
    }
    failed(format!("the connection to the keyring failed: {error}"))
}

const NAME: &str = "org.freedesktop.secrets";

/// What to do on a machine without a desktop.
const ALTERNATIVE: &str = "start one, or set token-store to \"kernel\" or \"file\" in the profile's provider";
