//! Processes that carry a job's key in their environment: children that outlive the process that the key was made for
//! (`nohup`, a terminal multiplexer). The job is over when there is none.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::head::KEY_LENGTH;
use crate::blocking;
use crate::process::{Process, carriers};
use crate::token::TokenHash;

/// The last look at all processes. Jobs that end together share one.
#[derive(Default)]
pub(super) struct Survivors(Mutex<Option<Look>>);

struct Look {
    began: Instant,
    found: Arc<[(Process, TokenHash)]>,
}

impl Survivors {
    /// A process that has `key` now, if there is one.
    pub(super) async fn of(&self, key: TokenHash) -> Option<Process> {
        loop {
            let all = self.all().await;
            let mut own = all.iter().filter(|(_, hash)| *hash == key).map(|(process, _)| *process).peekable();
            own.peek()?;
            if let Some(process) = own.find(|process| process.is_running()) {
                return Some(process);
            }
            // They have ended since, and may have left children of their own.
        }
    }

    /// All that have any key, as they were not before this call.
    pub(super) async fn all(&self) -> Arc<[(Process, TokenHash)]> {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.began >= asked) {
            return Arc::clone(&look.found);
        }
        let began = Instant::now();
        let found: Arc<[_]> = match blocking::run(look).await {
            Ok(found) => found.into(),
            // The system gives no thread, and a key must not die of that.
            Err(_) => look().into(),
        };
        *last = Some(Look { began, found: Arc::clone(&found) });
        found
    }
}

fn look() -> Vec<(Process, TokenHash)> {
    carriers::of(VARIABLE, |value| {
        let value = std::str::from_utf8(value.as_bytes()).ok()?;
        (value.len() == KEY_LENGTH).then(|| TokenHash::of(value))
    })
}

/// Where `exec` and `env` put the key.
const VARIABLE: &str = "WANDB_API_KEY";
