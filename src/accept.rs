//! The accept loop of every listener in this crate: the socket server, the sign-in callback, the sandbox.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::backoff::Thinned;

/// Accepts connections until cancelled, and hands each to `serve` with its slot. `serve` must not block; it drops
/// the slot when the connection ends.
///
/// A slot is taken before accepting, so connections over the limit wait in the kernel's backlog, where they cost us
/// nothing.
pub async fn accept<Stream, Next: Future<Output = io::Result<Stream>>>(
    slots: &Arc<Semaphore>,
    next: impl Fn() -> Next,
    mut serve: impl FnMut(Stream, OwnedSemaphorePermit),
) {
    let failures = Thinned::new();
    while let Ok(slot) = Arc::clone(slots).acquire_owned().await {
        match next().await {
            Ok(stream) => serve(stream, slot),
            Err(error) => {
                // Most likely out of file descriptors: give open connections time to end.
                if let Some(count) = failures.count() {
                    warn!(%error, count, "cannot accept a connection");
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

const RETRY_DELAY: Duration = Duration::from_millis(50);
