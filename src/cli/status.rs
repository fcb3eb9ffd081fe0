//! `wandb-cred status`: what the daemon holds, and for how long.

mod jobs;
mod render;

use std::time::Duration;

use self::render::overall;
use super::command_error::{CommandError, Outcome};
use super::keys::Keys;
use crate::api::{State, Status};
use crate::client::{self, Client};
use crate::clock::Clock;
use crate::env::Env;
use crate::error::Exit;
use crate::output::{self, Style};

/// Show the state and expiry of each profile
#[derive(clap::Args)]
#[command(long_about = DETAILS, after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Show only this profile
    #[arg(long, short, value_name = "NAME")]
    profile: Option<String>,
    /// Show also the processes that use the SDK files
    #[arg(long)]
    jobs: bool,
    /// Keep printing: every second on a terminal, at each change elsewhere
    #[arg(long, short)]
    watch: bool,
    /// Print the daemon's answer as JSON, one document per line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    let client = Client::find(env)?;
    if args.watch {
        return watch(args, &client, env);
    }
    let status = fetch(args, &client)?;
    if let Some(name) = &args.profile
        && status.profiles.is_empty()
    {
        return Err(CommandError::new(Exit::Configuration, format!("there is no profile {name}"))
            .hint("wandb-cred status"));
    }
    output::print(&show(args, &status, env))?;
    Ok(exit_for(&status))
}

fn fetch(args: &Args, client: &Client) -> Result<Status, client::Error> {
    let mut status = if args.jobs { client.status_with_jobs()? } else { client.status()? };
    if let Some(name) = &args.profile {
        status.profiles.retain(|profile| profile.name == *name);
        status.job_list.iter_mut().for_each(|jobs| jobs.retain(|job| job.profile == *name));
    }
    Ok(status)
}

fn show(args: &Args, status: &Status, env: &Env) -> String {
    let now = Clock::system().now().wall;
    if args.json {
        serde_json::to_string(status).expect("the API's types always serialize") + "\n"
    } else if output::is_terminal() {
        let width = output::terminal_width().unwrap_or(80);
        let style = Style::detect(env);
        render::table(status, now, style, width) + &jobs::table(status, now, style)
    } else {
        render::blocks(status, now) + &jobs::blocks(status)
    }
}

/// Prints until interrupted, or until nobody reads. That the daemon goes away, or comes back, is a change like others.
fn watch(args: &Args, client: &Client, env: &Env) -> Outcome {
    let mut shown = None;
    let screen = output::is_terminal() && !args.json;
    let keys = screen.then(Keys::take).flatten();
    loop {
        let (text, state) = match fetch(args, client) {
            Ok(status) => (show(args, &status, env), without_countdowns(status)),
            Err(error) => {
                let error = CommandError::from(error);
                let message = output::printable(error.message());
                let text =
                    if args.json { serde_json::json!({ "error": message }).to_string() } else { message };
                (text + "\n", error.message().to_owned())
            }
        };
        if screen {
            output::print(&format!("\x1b[H\x1b[J{}", clipped(&text, keys.is_some())))?;
        } else if shown.as_ref() != Some(&state) {
            output::print(&text)?;
            shown = Some(state);
        }
        let over = match &keys {
            Some(keys) => keys.end_within(WATCH_INTERVAL),
            None => output::wait_closed(WATCH_INTERVAL),
        };
        if over {
            return Ok(Exit::Success);
        }
    }
}

/// What fits on the screen, with how to leave it in the last line.
fn clipped(text: &str, keys: bool) -> String {
    let rows = output::terminal_size().map_or(usize::MAX, |(_, rows)| rows.saturating_sub(1).max(2));
    let room = rows - usize::from(keys);
    let lines: Vec<&str> = text.lines().collect();
    let mut shown = if lines.len() > room {
        let hidden = lines.len() - (room - 1);
        format!("{}\n... {hidden} more lines\n", lines[..room - 1].join("\n"))
    } else {
        text.to_owned()
    };
    if keys {
        shown += "q: end";
    }
    shown
}

/// The status without the seconds that pass, to compare with the next one.
fn without_countdowns(mut status: Status) -> String {
    for profile in &mut status.profiles {
        if let Some(identity) = &mut profile.identity {
            identity.expires_in = None;
        }
        profile.access.expires_in = None;
    }
    serde_json::to_string(&status).expect("the API's types always serialize")
}

/// The worst profile decides.
fn exit_for(status: &Status) -> Exit {
    let states = || status.profiles.iter().map(overall);
    if states().any(|state| state == State::NeedsLogin) {
        Exit::NeedsLogin
    } else if states().any(|state| state == State::Failed) {
        Exit::TryLater
    } else {
        Exit::Success
    }
}

const WATCH_INTERVAL: Duration = Duration::from_secs(1);

const DETAILS: &str = "\
Show for each profile whether its access token is good and for how long, when it is
renewed, whose identity it is, until when that identity can last, and what to do if
something is wrong. No token is shown.

With --jobs, show also who holds credentials now: each process that was started by
wandb-cred exec, or for which wandb-cred env was run, with its user, its batch or CI job
and its container or control group. \"adopted\" are processes that have outlived the job
that they came from; \"held\" are those that the daemon cannot see, because they run in a
container, and that keep a connection open.";

const AFTER_HELP: &str = "States:
  fresh        there is a good access token
  stale        its renewal fails at present; the last good token is served until it expires
  starting     nobody has asked for a token of this profile yet
  needs-login  a person must sign in
  failed       there is no usable token, and the last attempt failed

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
                profile.identity.as_mut().expect("it has one").state = identity;
                profile
            });
            exit_for(&status(profiles.collect()))
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
        assert_eq!(without_countdowns(status(vec![before])), without_countdowns(status(vec![after.clone()])));
        let was = without_countdowns(status(vec![after.clone()]));
        after.access.state = State::Stale;
        assert_ne!(was, without_countdowns(status(vec![after])));
    }
}
