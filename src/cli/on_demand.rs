//! Finds the daemon to ask; where none runs, starts one that all who need the same one share.
//!
//! The first to come starts it, under a lock; the others wait for its socket. Whoever asked a daemon that was just leaving
//! asks again.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{self, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::command_error::CommandError;
use super::{daemon_program, job_wide};
use crate::api::{self, ProblemKind};
use crate::client::{self, Client};
use crate::clock::Clock;
use crate::env::Env;
use crate::error::{Error, Exit, Reason};
use crate::output::{self, Waiting};
use crate::paths::{self, Base, Key, OnDemand, SdkEnvironment};
use crate::start_lock::StartLock;

/// The daemon that answers.
pub(super) struct Daemon {
    pub(super) client: Client,
    /// It is not at the usual place, so a command that is started must be told where it is.
    pub(super) on_demand: bool,
}

/// Asks the daemon at the usual place; if none answers there, one that is shared by all who need the same one, and is started
/// if need be. The inner result is the daemon's answer.
pub(super) fn ask<T>(
    env: &Env,
    mut question: impl FnMut(&Client) -> Result<T, client::Error>,
) -> Result<(Daemon, Result<T, client::Error>), CommandError> {
    let mut question = |client: &Client| {
        let _line = waiting(client);
        question(client).map_err(|error| name_the_variable(error, env))
    };
    if let Some(client) = job_wide::running(env) {
        let answer = question(&client);
        return Ok((Daemon { client, on_demand: true }, answer));
    }
    let why = match Client::usual(env) {
        Ok(usual) => match ask_restarting(&usual, &mut question) {
            Err(error) if is_not_ours(&error) => env.path("WANDB_CRED_SOCKET").map(|_| error.to_string()),
            answer => return Ok((Daemon { client: usual, on_demand: false }, answer)),
        },
        Err(error) if error.reason == socket_variable() => Some(error.message),
        Err(error) => return Err(error.into()),
    };
    let key = Key::of(env);
    let mut departures = 0;
    loop {
        let client = match Client::on_demand(&key, env) {
            Some(client) => client,
            None => start(&key, why.as_deref(), env)?,
        };
        match question(&client) {
            Err(error) if has_left(&error) && departures < MOST_DEPARTURES => departures += 1,
            answer => return Ok((Daemon { client, on_demand: true }, answer)),
        }
        sleep(POLL_INTERVAL);
    }
}

/// Says on a terminal that the daemon is waited for, and what keeps it.
fn waiting(client: &Client) -> Waiting {
    let asked = Client::at(client.socket().to_owned());
    Waiting::begin(move || {
        let status = asked.get::<api::Status>("/v1/status", STATUS_TIMEOUT).ok();
        let profiles = status.into_iter().flat_map(|status| status.profiles);
        let failing = profiles.filter(|profile| profile.hot).find_map(|profile| {
            let identity = profile.identity.and_then(|identity| identity.last_error);
            identity.or(profile.access.last_error)
        });
        match failing {
            Some(why) => format!("waiting for a token (Ctrl-C ends): {why}"),
            None => "waiting for the daemon (Ctrl-C ends)".to_owned(),
        }
    })
}

/// The profile that there is not may be that of another configuration, which a variable still names.
fn name_the_variable(error: client::Error, env: &Env) -> client::Error {
    match error {
        client::Error::Problem(mut problem)
            if problem.kind == ProblemKind::NoSuchProfile
                && problem.profile.is_some()
                && problem.profile == env.var("WANDB_CRED_PROFILE") =>
        {
            problem.detail += "; WANDB_CRED_PROFILE names it";
            problem.next = Some("unset WANDB_CRED_PROFILE".to_owned());
            client::Error::Problem(problem)
        }
        other => other,
    }
}

/// Asks a daemon that may be restarted at this moment: the next one is worth a short wait, which spares us one of our own.
fn ask_restarting<T>(
    usual: &Client,
    question: &mut impl FnMut(&Client) -> Result<T, client::Error>,
) -> Result<T, client::Error> {
    loop {
        match question(usual) {
            Err(error) if has_left(&error) && usual.left_lately(RESTART_TIME) => sleep(MAX_POLL_INTERVAL),
            answer => return answer,
        }
    }
}

/// The variable holds no path that a socket can have.
fn socket_variable() -> Reason {
    Reason::Variable { name: "WANDB_CRED_SOCKET".to_owned() }
}

/// The daemon, without a question.
pub(super) fn find_or_start(env: &Env) -> Result<Daemon, CommandError> {
    // Whoever listens is there, even if it has no time for us now.
    let listens = |client: &Client| match client.status() {
        Err(client::Error::TimedOut { .. }) => Ok(()),
        answer => answer.map(drop),
    };
    let (daemon, answer) = ask(env, listens)?;
    answer?;
    Ok(daemon)
}

/// Whether no daemon of this user's is there. A variable may name that of another machine, or of a job that has ended.
fn is_not_ours(error: &client::Error) -> bool {
    use client::Error;
    matches!(
        error,
        Error::NotRunning { .. } | Error::Denied { .. } | Error::Unsafe(_) | Error::Stranger { .. }
    )
}

/// Whether the daemon ended before it did anything.
fn has_left(error: &client::Error) -> bool {
    match error {
        client::Error::NotRunning { .. } | client::Error::BrokeOff { received: 0, .. } => true,
        client::Error::Problem(problem) => problem.kind == ProblemKind::ShuttingDown,
        _ => false,
    }
}

/// Starts one in the first folder that can be used. `why` says why the daemon that the environment names was not taken.
fn start(key: &Key, why: Option<&str>, env: &Env) -> Result<Client, CommandError> {
    let mut passed_over: Vec<(Base, Error)> = Vec::new();
    for base in paths::bases(env) {
        if let Err(error) = base.prepare() {
            passed_over.push((base, error));
            continue;
        }
        // Too long a path for a socket.
        let Some(place) = key.place(&base.path) else { continue };
        let Some(client) = start_at(&place, &base.path, key, env)? else { continue };
        explain(why, &passed_over, &base.path, env);
        return Ok(client);
    }
    Err(no_folder(passed_over.into_iter().map(|(_, error)| error.message).collect()))
}

/// There is no place for a socket on this machine.
pub(super) fn no_folder(mut reasons: Vec<String>) -> CommandError {
    // Several names in one folder that is not there fail alike.
    reasons.dedup();
    let message = format!("no folder for a daemon's socket can be used: {}", reasons.join("; "));
    CommandError::new(Exit::Configuration, message).hint("set TMPDIR to a folder of your own on this machine")
}

/// One line for whoever looks at the job's output: where the daemon is, if that is not where the environment says.
fn explain(why: Option<&str>, passed_over: &[(Base, Error)], used: &Path, env: &Env) {
    let by_variable = passed_over.iter().find_map(|(base, error)| {
        let variable = base.variable?;
        Some(format!("{variable} cannot be used ({})", error.message))
    });
    let stale = SdkEnvironment::of(env)
        .filter(SdkEnvironment::is_stale)
        .map(|_| format!("{} was left behind by a job that has ended", paths::IDENTITY_TOKEN_FILE));
    // Next to where WANDB_CRED_SOCKET points is as good as there.
    let elsewhere = paths::bases(env).first().is_none_or(|first| first.path != used);
    let why = why.map(str::to_owned).filter(|_| elsewhere);
    let reasons: Vec<_> = [stale, why.or(by_variable)].into_iter().flatten().collect();
    if !reasons.is_empty() {
        let text = format!(
            "wandb-cred: {}; the daemon started for this uses {}",
            reasons.join("; "),
            used.display()
        );
        output::eprint_line(&output::printable(&text));
    }
}

/// `None` if this folder cannot be used after all.
fn start_at(place: &OnDemand, base: &Path, key: &Key, env: &Env) -> Result<Option<Client>, CommandError> {
    let answering = || {
        let client = Client::guarded_at(place.socket.clone());
        client.accepts().then_some(client)
    };
    let clock = Clock::system();
    let deadline = clock.now().boot + START_TIMEOUT;
    let mut pause = POLL_INTERVAL;
    let lock = loop {
        match StartLock::try_take(&place.start_lock) {
            Ok(Some(lock)) => break lock,
            Ok(None) => {}
            // A file system that takes no files.
            Err(_) => return Ok(None),
        }
        if let Some(client) = answering() {
            return Ok(Some(client));
        }
        if clock.now().boot >= deadline {
            let message = format!(
                "another process has been starting a daemon for {} s, and holds {}",
                START_TIMEOUT.as_secs(),
                place.start_lock.display()
            );
            return Err(CommandError::new(Exit::TryLater, message).hint("wandb-cred exec --private -- CMD"));
        }
        sleep(pause);
        pause = (pause * 2).min(MAX_POLL_INTERVAL);
    };
    if let Some(client) = answering() {
        return Ok(Some(client));
    }
    remove_leftovers(base, place);
    if std::fs::DirBuilder::new().mode(0o700).create(&place.folder).is_err() {
        // There is one already, of a daemon that was killed: the next takes up what it left.
        paths::private_dir(&place.folder)?;
    }
    let grace = format!("{}s", key.grace.as_secs());
    let started = run_daemon(&place.socket, &["--until-unneeded", &grace], env);
    if started.is_err() {
        let _ = std::fs::remove_dir_all(&place.folder);
        lock.remove();
    }
    started?;
    Ok(Some(Client::guarded_at(place.socket.clone())))
}

/// Runs the daemon in the background, and returns once it answers at `socket`.
pub(super) fn run_daemon(socket: &Path, arguments: &[&str], env: &Env) -> Result<(), CommandError> {
    let program = daemon_program::find(env);
    let mut command = process::Command::new(&program);
    command.args(["run", "--background"]).args(arguments).env("WANDB_CRED_SOCKET", socket);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = as_no_child_of_ours(|| command.status());
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(daemon_program::failed("wandb-credd ended at once", status)),
        Err(error) => {
            let usual = paths::socket(env).unwrap_or_else(|_| socket.to_owned());
            let why = format!("no daemon answers at {}", usual.display());
            Err(daemon_program::not_started(&program, &error).because(&why))
        }
    }
}

/// A process that is set to adopt orphans would become the daemon's parent, and so would the command that it becomes: one
/// that waits for all its children would wait for the daemon.
#[cfg(target_os = "linux")]
fn as_no_child_of_ours<T>(work: impl FnOnce() -> T) -> T {
    use rustix::process::{child_subreaper, getpid, set_child_subreaper};
    let adopts = child_subreaper().is_ok_and(|setting| setting.is_some());
    if adopts {
        let _ = set_child_subreaper(None);
    }
    let outcome = work();
    if adopts {
        let _ = set_child_subreaper(Some(getpid()));
    }
    outcome
}

#[cfg(not(target_os = "linux"))]
fn as_no_child_of_ours<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Removes the folders, and so the tokens, of daemons on demand that were killed before they could do it. One that runs, or
/// is being started, or leaves, holds one of its two locks.
fn remove_leftovers(base: &Path, own: &OnDemand) {
    for place in OnDemand::all_of_this_machine(base) {
        if place == *own || Client::guarded_at(place.socket.clone()).accepts() {
            continue;
        }
        let Ok(Some(starting)) = StartLock::try_take(&place.start_lock) else { continue };
        // Not `try_take`, which would make the file.
        let serving = std::fs::File::open(place.served_lock()).is_ok_and(|lock| lock.try_lock().is_err());
        if !serving {
            let _ = std::fs::remove_dir_all(&place.folder);
            starting.remove();
        }
    }
}

/// For a line on the screen.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// For somebody else's start of a daemon, or the end of one.
const START_TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(2);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A service manager starts a service again within a fraction of a second; an upgrade between takes a little longer.
const RESTART_TIME: Duration = Duration::from_secs(3);

/// A daemon leaves once in its life, and each is met by chance.
const MOST_DEPARTURES: u32 = 5;
