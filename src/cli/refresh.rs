//! `wandb-cred refresh`: renew now.

use std::time::Duration;

use super::command_error::Outcome;
use super::on_demand;
use super::profile::ProfileArg;
use crate::client::ANSWER_MARGIN;
use crate::env::Env;
use crate::error::Exit;
use crate::{api, duration, output};

/// Renew the tokens now
#[derive(clap::Args)]
#[command(long_about = DETAILS)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArg,
    /// Print the profile's new state as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    let target = args.profile.target("/v1/refresh", env);
    let (_, profile) = on_demand::ask(env, |client| client.post_empty(&target, REFRESH_TIMEOUT))?;
    let profile: api::Profile = profile?;
    output::print_line(if args.json {
        serde_json::to_string(&profile).expect("the API's types always serialize")
    } else {
        let left = profile.access.expires_in.map_or("unknown time".to_owned(), duration::text);
        format!("{}: renewed, the access token is good for {left}", profile.name)
    })?;
    Ok(Exit::Success)
}

const REFRESH_TIMEOUT: Duration = Duration::from_secs(60).saturating_add(ANSWER_MARGIN);

const DETAILS: &str = "\
Fetch a new identity token now, and exchange it for a new access token.

You rarely need this: the daemon renews by itself, long before anything expires. It is
useful after a change at the identity provider or in W&B, and shows at once whether the
change works. Until the new token is there, programs get the old one.";
