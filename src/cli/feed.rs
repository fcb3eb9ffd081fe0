//! `wandb-cred feed`: a line with an access token at once and at each renewal, for a daemon elsewhere.

use std::io::{Read as _, Seek as _};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use self::ends::Ends;
use super::command_error::{CommandError, Outcome};
use super::need::NeedArg;
use super::profile::ProfileArg;
use super::{job, job_wide, login, on_demand};
use crate::api;
use crate::backoff::Backoff;
use crate::client::{self, ANSWER_MARGIN, Client};
use crate::clock::Clock;
use crate::env::Env;
use crate::error::Exit;
use crate::output;

mod ends;
mod steps;

/// Pass access tokens on to a daemon elsewhere
#[derive(clap::Args)]
#[command(long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArg,
    #[command(flatten)]
    need: NeedArg,
    /// Feed all nodes of this Slurm job until it ends
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
    /// With --job: return once each node has a token, and go on in the background
    #[arg(long, requires = "job")]
    background: bool,
    /// Stop when this process ends
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    lifetime_of: Option<u32>,
    /// What --background starts
    #[arg(long, hide = true)]
    detached: bool,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    if args.background {
        return background(args);
    }
    if args.detached {
        // Ctrl-C is for what runs in the foreground.
        let _ = rustix::process::setsid();
    }
    if let Some(job) = &args.job {
        return steps::run(job, args, env);
    }
    let ends = Ends::new(Some(&std::io::stdout()), args.lifetime_of)?;
    let (mut follower, line) = Follower::begin(args, env)?;
    output::print_line(line)?;
    while let Some(line) = follower.next(&ends) {
        output::print_line(line)?;
    }
    Ok(Exit::Success)
}

/// Starts this command again, and returns with its first line. It is then no child of the job that it serves, and has
/// nothing of it open but standard error.
fn background(args: &Args) -> Outcome {
    close_fds::set_fds_cloexec(3, &[]);
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .map(|argument| if argument == "--background" { "--detached".to_owned() } else { argument })
        .collect();
    // Whoever reads our errors from a pipe waits until nobody has it open any more.
    if args.lifetime_of.is_none() && output::is_stderr_a_pipe() {
        let failed =
            |error| CommandError::new(Exit::System, format!("cannot make a temporary file: {error}"));
        let mut errors = tempfile::tempfile().map_err(failed)?;
        let line = job_wide::first_line(&arguments, errors.try_clone().map_err(failed)?.into());
        let mut said = String::new();
        let _ = errors.rewind().and_then(|()| errors.read_to_string(&mut said));
        output::eprint(&said);
        output::print(&line?.0)?;
    } else {
        output::print(&job_wide::first_line(&arguments, Stdio::inherit())?.0)?;
    }
    Ok(Exit::Success)
}

/// Follows one profile's access token.
struct Follower<'a> {
    client: Client,
    profile: &'a ProfileArg,
    env: &'a Env,
    /// What the token that was passed on last is named by.
    known: String,
    /// A sign of life to a daemon that cannot see this process.
    _held: Option<std::os::unix::net::UnixStream>,
}

impl<'a> Follower<'a> {
    /// With the first token. What goes wrong now is told to whoever typed this.
    fn begin(args: &'a Args, env: &'a Env) -> Result<(Self, String), CommandError> {
        let target = args.profile.target("/v1/token", env);
        let request = |client: &Client| client.get_body(&target, TOKEN_TIMEOUT);
        let (daemon, body) = on_demand::ask(env, request)?;
        let client = daemon.client;
        let body = login::or_offer(&client, body, env, request)?;
        let token: api::Token = client.parse(&body)?;
        args.need.check(&client, &token.profile)?;
        let mut follower = Self { client, profile: &args.profile, env, known: hash(&token), _held: None };
        follower.register();
        Ok((follower, line(&body)))
    }

    /// The next token; `None` once an end is reached.
    fn next(&mut self, ends: &Ends) -> Option<String> {
        let (clock, mut failures, mut lost) = (Clock::system(), 0, None);
        loop {
            let mut target = self.profile.target("/v1/token", self.env);
            // After a failure, whether there is any token comes first.
            if failures == 0 {
                target += if target.contains('?') { "&" } else { "?" };
                target += &format!("newer_than={}&wait={}", self.known, WAIT.as_secs());
            }
            let timeout = WAIT + TOKEN_TIMEOUT;
            let asked =
                self.client.get_body_while(&target, timeout, |stream| ends.wait(Some(stream), timeout));
            let outcome = match asked {
                Ok(None) => return None,
                Ok(Some(body)) => {
                    self.client.parse::<api::Token>(&body).map(|token| (hash(&token), line(&body)))
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok((hash, line)) => {
                    if failures > 0 {
                        output::eprint_line("wandb-cred: the daemon answers again");
                        // It may be another, which does not know of this process.
                        self.register();
                        (failures, lost) = (0, None);
                    }
                    if hash != self.known {
                        self.known = hash;
                        return Some(line);
                    }
                    // A daemon that stops answers early.
                    if !ends.wait(None, PAUSE) {
                        return None;
                    }
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        let said = output::printable(&error.to_string());
                        output::eprint_line(&format!(
                            "wandb-cred: {said}; the feed goes on when there is a token"
                        ));
                    }
                    let now = clock.now().boot;
                    let gone = matches!(error, client::Error::NotRunning { .. });
                    if gone && now.saturating_sub(*lost.get_or_insert(now)) > GIVE_UP {
                        // Nobody starts it again, so we do.
                        if let Ok(daemon) = on_demand::find_or_start(self.env) {
                            self.client = daemon.client;
                        }
                        lost = None;
                    }
                    if !ends.wait(None, BACKOFF.delay(failures, None)) {
                        return None;
                    }
                }
            }
        }
    }

    /// The daemon keeps the profile fresh, and itself alive, while this process runs. Where it cannot, it is enough that
    /// somebody waits for the next token.
    fn register(&mut self) {
        let wanted = job::Wanted { profiles: &self.profile.into(), proxy: false, wait: false };
        if let Ok((_, held)) = job::register_own(&self.client, &wanted, self.env) {
            self._held = held;
        }
    }
}

fn line(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}

fn hash(token: &api::Token) -> String {
    Sha256::digest(&token.access_token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For a first exchange.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60).saturating_add(ANSWER_MARGIN);

/// The longest that the daemon lets a caller wait for the next token.
const WAIT: Duration = Duration::from_secs(120);

/// After an answer that brought nothing.
const PAUSE: Duration = Duration::from_millis(200);

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(10) };

/// A service that is not back by then was not started again.
const GIVE_UP: Duration = Duration::from_secs(60);

const DETAILS: &str = "\
Print a line of JSON with an access token, the answer of GET /v1/token, at once and at
each renewal, until nobody reads it any more. On another machine, wandb-credd run
--feed - serves such lines as if it had got the tokens itself. Only access tokens
travel; the identity that they were got with stays here.

With --job, it starts a daemon on every node of a Slurm job and feeds them by srun,
also from a login node, until the job ends. It prints one line, with the socket and the
files that are the same on all nodes, when each node has a token. In such a job,
wandb-cred exec finds the daemon of its node by SLURM_JOB_ID; a job that may be faster
than its feed waits until the socket is there.";

const EXAMPLES: &str = "Examples:
  wandb-cred feed | ssh gpu-host wandb-credd run --feed -
  wandb-cred feed --job 4711 --background           on the login node, for a job that runs or is queued
  until [ -S /tmp/wandb-cred-$UID/job-$SLURM_JOB_ID/wandb-cred.sock ]; do sleep 1; done    in that job
  wandb-cred exec --job -- srun python train.py     the same from within the job";
