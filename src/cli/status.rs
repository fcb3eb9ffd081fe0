//! `wandb-cred status`: what the daemon holds, and for how long.

mod render;

use std::time::Duration;

use clap::{ArgMatches, Command};

use super::failure::{Exit, Failure};
use super::output::{self, Paint};
use super::{Outcome, Verb};
use crate::api::{Profile, State, Status};
use crate::client::{Client, Error};
use crate::clock::Clock;
use crate::env::Env;

pub(super) const VERB: Verb =
    Verb { name: "status", about: "Show each profile's state, expiry and outlook", args, run };

#[derive(clap::Args)]
struct Args {
    /// Show only this profile
    #[arg(long, short, value_name = "NAME")]
    profile: Option<String>,
    /// Keep showing: every second on a terminal, at each change in a pipe
    #[arg(long, short)]
    watch: bool,
    /// Print the daemon's answer as JSON, one document a line
    #[arg(long)]
    json: bool,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS).after_help(AFTER_HELP)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let client = Client::find(env)?;
    if args.watch {
        return watch(&args, &client, env);
    }
    let status = fetch(&args, &client).map_err(|error| Failure::of(error, env))?;
    if let Some(name) = &args.profile
        && status.profiles.is_empty()
    {
        return Err(Failure::new(Exit::Configuration, format!("there is no profile {name}"))
            .next("wandb-cred status"));
    }
    output::print(&show(&args, &status, env))?;
    Ok(verdict(&status))
}

fn fetch(args: &Args, client: &Client) -> Result<Status, Error> {
    let mut status: Status = client.get("/v1/status", PATIENCE)?;
    if let Some(name) = &args.profile {
        status.profiles.retain(|profile| profile.name == *name);
    }
    Ok(status)
}

fn show(args: &Args, status: &Status, env: &Env) -> String {
    let now = Clock::system().now().wall;
    if args.json {
        serde_json::to_string(status).expect("the API's types always serialize") + "\n"
    } else if output::is_terminal() {
        render::table(status, now, Paint::find(env))
    } else {
        render::blocks(status, now)
    }
}

/// Shows until interrupted. A daemon that goes away is shown as such, and again when it is back.
fn watch(args: &Args, client: &Client, env: &Env) -> Outcome {
    let mut shown = None;
    loop {
        let (text, essence) = match fetch(args, client) {
            Ok(status) => (show(args, &status, env), essence(status)),
            Err(error) => {
                let failure = Failure::of(error, env);
                (format!("{}\n", failure.what()), failure.what().to_owned())
            }
        };
        if output::is_terminal() && !args.json {
            output::print(&format!("\x1b[H\x1b[J{text}"))?;
        } else if shown.as_ref() != Some(&essence) {
            output::print(&text)?;
            shown = Some(essence);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What counts as a change: everything but the seconds that pass.
fn essence(mut status: Status) -> String {
    for profile in &mut status.profiles {
        profile.identity.expires_in = None;
        profile.access.expires_in = None;
    }
    serde_json::to_string(&status).expect("the API's types always serialize")
}

/// The worst of the profiles.
fn verdict(status: &Status) -> Exit {
    let states = || status.profiles.iter().map(overall);
    if states().any(|state| state == State::NeedsLogin) {
        Exit::NeedsLogin
    } else if states().any(|state| state == State::Failed) {
        Exit::TryLater
    } else {
        Exit::Success
    }
}

/// A profile is as good as its access token, until a person must act.
fn overall(profile: &Profile) -> State {
    match (profile.access.state, profile.identity.state) {
        (State::Fresh, _) => State::Fresh,
        (access, State::NeedsLogin) if access != State::Stale => State::NeedsLogin,
        (State::Starting, State::Failed) => State::Failed,
        (access, _) => access,
    }
}

/// The daemon answers this from memory.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

const DETAILS: &str = "\
Show for each profile whether its access token is good and for how long, when it is
renewed, whose identity it is, until when that identity can last, and what to do where
something is wrong. No token is shown.";

const AFTER_HELP: &str = "States:
  fresh        a good access token is at hand
  stale        its renewal fails for now; the last good token is served until it expires
  starting     nothing has been asked of this profile yet
  needs-login  a person must sign in
  failed       no usable token, and the last attempt failed

Exit codes: 0 all good, 75 a profile fails, 77 a person must sign in, 69 no daemon.";

#[cfg(test)]
mod tests {
    use super::render::tests::{profile, status};
    use super::*;

    #[test]
    fn the_worst_profile_decides_the_exit_code() {
        let of = |states: &[(State, State)]| {
            let profiles = states.iter().map(|&(access, identity)| {
                let mut profile = profile();
                profile.access.state = access;
                profile.identity.state = identity;
                profile
            });
            verdict(&status(profiles.collect()))
        };
        use State::{Failed, Fresh, NeedsLogin, Stale, Starting};
        assert_eq!(of(&[]), Exit::Success);
        assert_eq!(of(&[(Fresh, Fresh), (Stale, Failed), (Starting, Starting)]), Exit::Success);
        assert_eq!(of(&[(Fresh, NeedsLogin)]), Exit::Success);
        assert_eq!(of(&[(Stale, NeedsLogin)]), Exit::Success);
        assert_eq!(of(&[(Failed, Fresh), (Fresh, Fresh)]), Exit::TryLater);
        assert_eq!(of(&[(Starting, Failed)]), Exit::TryLater);
        assert_eq!(of(&[(Failed, Fresh), (NeedsLogin, Fresh)]), Exit::NeedsLogin);
        assert_eq!(of(&[(Failed, NeedsLogin)]), Exit::NeedsLogin);
    }

    #[test]
    fn passing_seconds_are_no_change() {
        let mut before = profile();
        let mut after = before.clone();
        before.access.expires_in = Some(10);
        after.access.expires_in = Some(9);
        assert_eq!(essence(status(vec![before])), essence(status(vec![after.clone()])));
        let was = essence(status(vec![after.clone()]));
        after.access.state = State::Stale;
        assert_ne!(was, essence(status(vec![after])));
    }
}
