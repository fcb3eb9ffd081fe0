//! `wandb-cred lock` and `wandb-cred unlock`: while locked, the daemon hands out no token.

use clap::Command;

use super::failure::{Exit, Failure};
use super::{Outcome, Verb, output};
use crate::api;
use crate::client::Client;
use crate::env::Env;

pub(super) const LOCK: Verb =
    Verb { name: "lock", about: "Hand out no token until unlocked", args, run: |_, env| set(env, "lock") };
pub(super) const UNLOCK: Verb =
    Verb { name: "unlock", about: "Hand out tokens again", args, run: |_, env| set(env, "unlock") };

fn args(command: Command) -> Command {
    command.long_about(DETAILS)
}

fn set(env: &Env, verb: &str) -> Outcome {
    let client = Client::find(env)?;
    let answer = client.post_empty(&format!("/v1/{verb}"), PATIENCE);
    let api::Locked { locked } = answer.map_err(|error| Failure::of(error, env))?;
    output::print_line(if locked { "locked: no token is handed out" } else { "unlocked" })?;
    Ok(Exit::Success)
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

const DETAILS: &str = "\
While locked, the daemon answers every request for a token with exit code 77 and
\"locked\". It goes on keeping its tokens fresh, so that unlocking needs nobody to sign
in.

The files of programs that run under wandb-cred exec stay where they are. This guards
against a mistake or a program gone astray, not against an attacker who runs as you:
that one can unlock.";
