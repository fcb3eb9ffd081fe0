//! `wandb-cred lock` and `wandb-cred unlock`: while locked, the daemon hands out no token.

use std::time::Duration;

use super::command_error::Outcome;
use crate::api;
use crate::client::Client;
use crate::env::Env;
use crate::error::Exit;
use crate::output;

/// Stop handing out tokens
#[derive(clap::Args)]
#[command(long_about = DETAILS)]
pub(super) struct LockArgs {}

/// Hand out tokens again
#[derive(clap::Args)]
#[command(long_about = DETAILS)]
pub(super) struct UnlockArgs {}

pub(super) fn run(lock: bool, env: &Env) -> Outcome {
    let target = if lock { "/v1/lock" } else { "/v1/unlock" };
    let client = Client::find(env)?;
    // A daemon of an earlier version does not say.
    let before = client.status()?.locked;
    let api::Locked { locked } = client.post_empty(target, LOCK_TIMEOUT)?;
    output::print_line(match (before, locked) {
        (true, true) => "it was locked already: no tokens are handed out",
        (false, true) => "locked: no tokens are handed out",
        (true, false) => "unlocked",
        (false, false) => "it was not locked",
    })?;
    Ok(Exit::Success)
}

const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

const DETAILS: &str = "\
While the daemon is locked, every request for a token ends with exit code 77. The daemon
still keeps its tokens fresh, so nobody has to sign in after unlocking.

The files of programs that run under wandb-cred exec stay in place. Locking protects
against mistakes and runaway programs, not against an attacker who runs as you: they can
unlock.";
