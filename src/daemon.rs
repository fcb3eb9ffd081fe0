//! Wiring: reads the configuration, builds everything in order, spawns it, reloads, drains.
//!
//! The only module that spawns top-level tasks. One thread: measured, one beats two for this work, and
//! nothing on it may block.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::watch;
use tracing::info;
use tracing::level_filters::LevelFilter;

use crate::clock::Clock;
use crate::config::Config;
use crate::env::Env;
use crate::error::{Error, Exit, FileFault, Stage};
use crate::http::Http;
use crate::output;
use crate::paths::Places;
use crate::process::{self, Process};
use crate::profile::Parts;
use crate::server::bind::FileId;
use crate::server::{self, State, bind};
use crate::signals::{self, Signal};

mod background;
mod doctor;
mod first_login;
mod guests;
mod init;
mod log;
mod profile_set;
mod rebind;
mod service;

use profile_set::ProfileSet;

/// Keeps W&B access tokens fresh and serves them on a Unix socket.
#[derive(Parser)]
#[command(name = "wandb-credd", version)]
struct Cli {
    #[command(subcommand)]
    subcommand: Option<Subcommand>,
    #[command(flatten)]
    run: Run,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    /// Serve (the default)
    Run(Run),
    /// Check the configuration file
    Check(Source),
    /// Write a configuration file for this environment
    Init(init::Args),
    /// Write a configuration file for signing in, if there is none
    FirstLogin(first_login::Args),
    /// Find out why W&B does not accept you, and how to fix it
    Doctor(doctor::Args),
}

// No doc comments on what is flattened: clap would show them as the summary of the subcommand.

#[derive(clap::Args)]
struct Source {
    /// The configuration file, if it is not in the usual place
    #[arg(long, value_name = "PATH", env = "WANDB_CRED_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    source: Source,
    /// The log format [default: the journal with its fields under systemd, else text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<log::Format>,
    /// off, error, warn, info, debug or trace [default: info; warn with --lifetime-of]
    #[arg(long, value_name = "LEVEL", env = "WANDB_CRED_LOG")]
    log_level: Option<LevelFilter>,
    /// Stop when this process ends
    #[arg(long, value_name = "PID")]
    lifetime_of: Option<i32>,
    /// Return once the socket answers, and serve in the background
    #[arg(long)]
    background: bool,
}

/// The command line, for tests of what pages and messages name.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

pub fn main() -> ExitCode {
    // Before anything that takes time: a signal must never meet the default handler once we are known.
    let signals = serves(std::env::args_os().nth(1).as_deref()).then(signals::install);
    process::harden();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error).into(),
    };
    let outcome = match cli.subcommand {
        None => run(cli.run, signals),
        Some(Subcommand::Run(args)) => run(args, signals),
        Some(Subcommand::Check(source)) => check(&source),
        Some(Subcommand::Init(args)) => init::run(&args),
        Some(Subcommand::FirstLogin(args)) => first_login::run(&args),
        Some(Subcommand::Doctor(args)) => return doctor::run(&args),
    };
    match outcome {
        Ok(()) => Exit::Success.into(),
        Err(error) => report(&error).into(),
    }
}

/// Whether the program's first argument leads to serving: the other subcommands end by signals as programs do.
fn serves(first: Option<&OsStr>) -> bool {
    first.is_none_or(|first| first == "run" || first.as_encoded_bytes().starts_with(b"-"))
}

/// Prints help or the version if that was asked for; else says what is wrong with the command line.
fn not_parsed(error: &clap::Error) -> Exit {
    if error.use_stderr() {
        output::eprint(&error.to_string());
        return Exit::Usage;
    }
    match output::print(&error.to_string()) {
        Ok(()) => Exit::Success,
        Err(error) => report(&error.into()),
    }
}

/// Says what went wrong, and how the program ends.
fn report(error: &anyhow::Error) -> Exit {
    let exit = exit_for(error);
    // A reader that has gone away is no error.
    if exit != Exit::Success {
        output::eprint_line(&format!("wandb-credd: {error:#}"));
    }
    exit
}

fn exit_for(error: &anyhow::Error) -> Exit {
    if error.is::<InvalidProfiles>() {
        Exit::Configuration
    } else if error.is::<TooFewFiles>() {
        Exit::System
    } else if let Some(error) = error.downcast_ref::<output::Error>() {
        error.into()
    } else if let Some(error) = error.downcast_ref::<init::Error>() {
        error.into()
    } else if let Some(error) = error.downcast_ref::<Error>() {
        match error.stage {
            Stage::Configuration | Stage::Files => error.into(),
            // A first login asks a W&B server where to sign in, and it gave no usable answer.
            Stage::Identity | Stage::Exchange | Stage::SignIn => Exit::Unavailable,
        }
    } else if let Some(error) = error.downcast_ref::<first_login::Error>() {
        error.into()
    } else if let Some(error) = error.downcast_ref::<bind::Error>() {
        // A folder that others can reach stays so until somebody fixes it.
        if matches!(error, bind::Error::Place(_)) { Exit::Configuration } else { Exit::Unavailable }
    } else {
        error.downcast_ref::<background::Failed>().map_or(Exit::Software, |failed| failed.exit)
    }
}

fn places(source: &Source) -> anyhow::Result<Places> {
    let mut places = Places::find(&Env::system())?;
    if let Some(config) = &source.config {
        places.config.clone_from(config);
    }
    Ok(places)
}

fn check(source: &Source) -> anyhow::Result<()> {
    let (env, places) = (Env::system(), places(source)?);
    let config = Config::load(&places.config, &env)?.strict()?;
    let clock = Clock::system();
    let parts = Parts { env, http: Http::new(clock.clone()), clock };
    let mut unusable = Vec::new();
    for (name, profile) in &config.profiles {
        if let Err(error) = profile.provider.clone().build(profile.context(name, &parts)) {
            let place = config.path.as_deref().unwrap_or(&places.config).display();
            unusable.push(format!("{place}: profile `{name}`: {error}"));
        }
    }
    if !unusable.is_empty() {
        return Err(InvalidProfiles(unusable.join("\n")).into());
    }
    let names = config.names().collect::<Vec<_>>().join(", ");
    output::print_line(format!("ok: {} profile(s): {names}", config.profiles.len()))?;
    Ok(())
}

/// Profiles that parse but cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct InvalidProfiles(String);

/// Of one thread, and so declared that the code for several is left out of the program.
fn runtime() -> anyhow::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_IDLE)
        .build_local(LocalOptions::default())
        .context("cannot start the runtime")
}

fn run(args: Run, signals: Option<io::Result<signals::Handlers>>) -> anyhow::Result<()> {
    if args.background {
        return Ok(background::spawn(&places(&args.source)?)?);
    }
    let signals = signals.unwrap_or_else(signals::install).context("cannot install signal handlers")?;
    if let Some(limit) = process::file_limit().filter(|limit| *limit < MIN_FILES) {
        return Err(TooFewFiles { limit }.into());
    }
    if args.lifetime_of.is_some() {
        // Out of the terminal's process group: Ctrl-C is for the job, which still needs tokens to end well.
        let _ = rustix::process::setsid();
    }
    // Beside a job our standard error is the job's own: only what matters goes there.
    let level = if args.lifetime_of.is_some() { LevelFilter::WARN } else { LevelFilter::INFO };
    log::init(args.log_format, args.log_level.unwrap_or(level));
    let env = Env::system();
    let mut places = places(&args.source)?;
    if args.lifetime_of.is_some() {
        // The job's folder may be removed or unmounted while we run.
        places.config = std::path::absolute(&places.config).context("the configuration's path")?;
        std::env::set_current_dir("/").context("cannot change to /")?;
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(env, places, args.lifetime_of, signals));
    // A provider's file on a dead mount may hold a blocking thread for ever.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Sockets, timers and files of a few profiles, and some callers.
const MIN_FILES: u64 = 64;

#[derive(Debug, thiserror::Error)]
#[error("only {limit} files may be open here (ulimit -n), and the daemon needs at least {MIN_FILES}")]
struct TooFewFiles {
    limit: u64,
}

async fn serve(
    env: Env,
    places: Places,
    lifetime_of: Option<i32>,
    signals: signals::Handlers,
) -> anyhow::Result<()> {
    let mut bound = bind::bind(&places.socket)?;
    let owner_ended = watch_owner(lifetime_of)?;
    let config = match Config::load_in_time(&places.config, &env).await {
        // Perhaps the system gives no thread to read it on.
        Err(error) if error.file_fault() == Some(&FileFault::Unreadable) => {
            Config::load(&places.config, &env)?
        }
        loaded => loaded?,
    };
    let clock = Clock::system();
    let parts = Parts { env: env.clone(), http: Http::new(clock.clone()), clock: clock.clone() };
    let socket = bound.path().unwrap_or_else(|| places.socket.clone());
    let (runtime, http) = (places.runtime.clone(), parts.http.clone());
    let mut profiles = ProfileSet::new(places, parts);
    let directory = profiles.apply(&config);
    let listener = bound.take_listener()?;
    let state = Arc::new(State::new(directory, clock, socket, http));
    state.take_up_jobs().await;
    let (mut stop, stopping) = watch::channel(false);
    let mut server = server::spawn(listener, Arc::clone(&state), stopping);
    let guests = guests::Guests::open(&runtime, &state)?;
    let file = FileId::of(&state.socket);
    let mut rebound = Box::pin(rebind::rebound(state.socket.clone(), file, state.clock.clone()));
    info!(socket = %state.socket.display(), profiles = state.directory().members.len(), "serving");
    service::ready();
    let mut signals = signals.listen().context("cannot listen for signals")?;
    let watchdog = service::watchdog(&state.clock);
    tokio::pin!(owner_ended, watchdog);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Hangup => {
                    service::reloading();
                    profiles.reload(&env, &state).await;
                    service::ready();
                }
                Signal::Terminate => break,
            },
            () = &mut owner_ended => break,
            fresh = &mut rebound => {
                // The old server goes on until the connections that it has are done.
                stop.send_replace(true);
                bound = fresh;
                let listener = bound.take_listener()?;
                let (next, stopping) = watch::channel(false);
                (stop, server) = (next, server::spawn(listener, Arc::clone(&state), stopping));
                state.record_jobs_again().await;
                info!(socket = %state.socket.display(), "serving again");
                let file = FileId::of(&state.socket);
                rebound = Box::pin(rebind::rebound(state.socket.clone(), file, state.clock.clone()));
            }
            () = &mut watchdog => {}
        }
    }
    info!("stopping");
    service::stopping();
    // New connections go nowhere from here on, so take the name away first.
    drop((bound, guests));
    stop.send_replace(true);
    let _ = server.await;
    profiles.drain().await;
    if lifetime_of.is_some() {
        // `exec` made this folder for us alone: nothing of it outlives the job, tokens least of all.
        drop(profiles);
        state.close_job_record().await;
        if runtime.file_name().is_some_and(|name| name.to_string_lossy().starts_with("exec-")) {
            let _ = std::fs::remove_dir_all(runtime);
        }
    }
    Ok(())
}

/// Ends when the process that this daemon was started for does.
fn watch_owner(pid: Option<i32>) -> anyhow::Result<impl Future<Output = ()>> {
    let end = match pid {
        Some(pid) => {
            let pid = u32::try_from(pid).context("--lifetime-of needs a process number")?;
            Some(Process::find(pid).context("the process of --lifetime-of does not run")?.end())
        }
        None => None,
    };
    Ok(async move {
        match end {
            Some(end) => end.await,
            None => std::future::pending().await,
        }
    })
}

/// For files and name look-ups, which are the only things that block.
const BLOCKING_THREADS: usize = 8;

/// Idle threads end soon: an idle daemon is one thread.
const BLOCKING_IDLE: Duration = Duration::from_secs(1);
