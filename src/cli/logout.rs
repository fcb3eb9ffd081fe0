//! `wandb-cred logout`: ends the session, here and at the identity provider.

use std::time::Duration;

use super::command_error::Outcome;
use super::on_demand;
use super::profile::ProfileArg;
use crate::api;
use crate::env::Env;
use crate::error::Exit;
use crate::output;

/// Sign out
#[derive(clap::Args)]
#[command(long_about = DETAILS)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArg,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    let target = args.profile.target("/v1/logout", env);
    let (_, ended) = on_demand::ask(env, |client| client.post_empty(&target, LOGOUT_TIMEOUT))?;
    let ended: api::Logout = ended?;
    output::print_line(if args.json {
        serde_json::to_string(&ended).expect("the API's types always serialize")
    } else {
        describe(&ended)
    })?;
    Ok(Exit::Success)
}

fn describe(ended: &api::Logout) -> String {
    let api::Logout { profile, account, revoked, error } = ended;
    let Some(account) = account else { return format!("{profile}: nobody was signed in") };
    match (revoked, error) {
        (true, _) => format!("{profile}: signed out {account}, here and at the provider"),
        (false, None) => {
            format!(
                "{profile}: signed out {account} here; the provider offers no way to end the session there"
            )
        }
        (false, Some(why)) => {
            format!("{profile}: signed out {account} here, but the provider could not be told: {why}")
        }
    }
}

/// A keyring and a provider may both be slow.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(60);

const DETAILS: &str = "\
End your session. The refresh token is revoked, if the provider supports that, and
deleted from the token store; the daemon forgets its tokens for the profile, and deletes
the files it keeps for the W&B SDK.

Access tokens that programs have already received stay valid until they expire.";
