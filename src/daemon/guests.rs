//! The second socket, for users whom the configuration allows to have access tokens.
//!
//! The folder of the first one is closed to them, and stays so: it holds the SDK files, and with them the identity token.
//! Here they find a socket and nothing else, and the server treats them as it would there.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::watch;
use tracing::info;

use crate::error::{Error, Kind, Reason, Stage};
use crate::server::bind::{self, Bound};
use crate::server::{self, State};

/// Serves until it is dropped; then the socket's file is gone, and requests under way still get their answers.
pub(super) struct Guests {
    stop: watch::Sender<bool>,
    _bound: Bound,
}

impl Guests {
    /// Opens the socket that the configuration names, if it does.
    pub(super) fn open(runtime: &Path, state: &Arc<State>) -> anyhow::Result<Option<Self>> {
        let directory = state.directory();
        let Some(socket) = directory.config.guest_socket.as_deref() else { return Ok(None) };
        if socket.is_relative() || socket.parent() == Some(runtime) {
            return Err(misplaced(socket).into());
        }
        let mut bound = bind::bind_for_guests(socket).context("guest-socket")?;
        let (stop, stopping) = watch::channel(false);
        server::spawn(bound.take_listener()?, Arc::clone(state), stopping);
        info!(socket = %socket.display(), "serving guests");
        Ok(Some(Self { stop, _bound: bound }))
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn misplaced(socket: &Path) -> Error {
    let message = format!(
        "guest-socket must be an absolute path in a folder of its own, not {}: everybody may enter that folder",
        socket.display()
    );
    let reason = Reason::Setting { key: "guest-socket".to_owned() };
    Error::new(Stage::Configuration, Kind::Misconfigured, reason, message)
}
