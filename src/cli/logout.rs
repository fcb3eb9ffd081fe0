//! `wandb-cred logout`: ends the session, here and at the identity provider.

use clap::{ArgMatches, Command};

use super::failure::{Exit, Failure};
use super::{Outcome, Verb, exec, output, profile};
use crate::api;
use crate::env::Env;

pub(super) const VERB: Verb = Verb { name: "logout", about: "End your session", args, run };

#[derive(clap::Args)]
struct Args {
    #[command(flatten)]
    profile: profile::Choice,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let client = exec::daemon(env)?;
    let target = args.profile.target("/v1/logout", env);
    let ended: api::Logout = client.post_empty(&target, PATIENCE).map_err(|error| Failure::of(error, env))?;
    if args.json {
        output::print_line(serde_json::to_string(&ended).expect("the API's types always serialize"))?;
        return Ok(Exit::Success);
    }
    output::print_line(match (&ended.account, ended.revoked, &ended.error) {
        (None, ..) => format!("{}: nobody was signed in", ended.profile),
        (Some(account), true, _) => {
            format!("{}: signed out {account}, here and at the provider", ended.profile)
        }
        (Some(account), false, None) => {
            format!("{}: signed out {account} here; the provider has no way to be told", ended.profile)
        }
        (Some(account), false, Some(why)) => {
            format!("{}: signed out {account} here, but the provider was not told: {why}", ended.profile)
        }
    })?;
    Ok(Exit::Success)
}

/// A keyring and a provider may both be slow.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

const DETAILS: &str = "\
End your session: the refresh token is revoked where the provider can do that, and
removed from the token store; the daemon drops the tokens it holds for the profile, and
removes the files it keeps for the W&B SDK.

An access token that a program has already been given stays good until it expires.";
