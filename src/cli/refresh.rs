//! `wandb-cred refresh`: renew now.

use clap::{ArgMatches, Command};

use super::failure::{Exit, Failure};
use super::{Outcome, Verb, output, profile, span, token};
use crate::api;
use crate::client::Client;
use crate::env::Env;

pub(super) const VERB: Verb = Verb { name: "refresh", about: "Renew the tokens now", args, run };

#[derive(clap::Args)]
struct Args {
    #[command(flatten)]
    profile: profile::Choice,
    /// Print the profile's new state as JSON
    #[arg(long)]
    json: bool,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let client = Client::find(env)?;
    let target = args.profile.target("/v1/refresh", env);
    let profile: api::Profile =
        client.post_empty(&target, PATIENCE).map_err(|error| Failure::of(error, env))?;
    if args.json {
        output::print_line(serde_json::to_string(&profile).expect("the API's types always serialize"))?;
    } else {
        let left = profile.access.expires_in.map_or("unknown time".to_owned(), span::text);
        output::print_line(format!("{}: renewed, the access token is good for {left}", profile.name))?;
    }
    Ok(Exit::Success)
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60).saturating_add(token::GRACE);

const DETAILS: &str = "\
Fetch a new identity token and exchange it for a new access token, now.

Rarely needed: the daemon renews by itself, long before anything expires. It helps after
a change at the identity provider or in W&B, and shows at once whether that worked.
Until the new token is there, callers get the old one.";
