//! Wiring: reads the configuration, builds everything in order, spawns it, reloads, drains.
//!
//! The only module that spawns top-level tasks. One thread: measured, one beats two for this work, and
//! nothing on it may block. What streams through the proxy has a thread of its own.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
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
use crate::error::{Error, Exit, FileFault, Reason, Stage};
use crate::http::Http;
use crate::paths::{self, Places};
use crate::process;
use crate::profile::Parts;
use crate::server::bind::FileId;
use crate::server::{self, State, bind};
use crate::signals::{self, Signal};
use crate::{duration, output};

mod background;
mod check;
mod doctor;
mod failure;
mod fed;
mod first_login;
mod guests;
mod init;
mod lifetime;
mod log;
mod profile_set;
mod proxy_thread;
mod rebind;
mod record_network;
mod service;

use failure::Failure;
use lifetime::Lifetime;
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
    /// Write down what this shell knows of its network, for a service
    RecordNetwork(record_network::Args),
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
    /// off, error, warn, info, debug or trace [default: info; warn with --lifetime-of and --until-unneeded]
    #[arg(long, value_name = "LEVEL", env = "WANDB_CRED_LOG")]
    log_level: Option<LevelFilter>,
    /// Serve access tokens from the lines of `wandb-cred feed`, read from this file or, with `-`, from standard input
    #[arg(long, value_name = "PATH")]
    feed: Option<PathBuf>,
    /// Stop when this process ends
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    lifetime_of: Option<u32>,
    /// Stop when the last job has ended and nobody has asked for this long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_argument, conflicts_with = "lifetime_of")]
    until_unneeded: Option<Duration>,
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
        Some(Subcommand::Check(source)) => check::run(&source),
        Some(Subcommand::Init(args)) => init::run(&args),
        Some(Subcommand::FirstLogin(args)) => first_login::run(&args),
        Some(Subcommand::RecordNetwork(args)) => record_network::run(&args),
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
    let said = format!("{error:#}");
    if exit != Exit::Success && !said.is_empty() {
        output::eprint_line(&format!("wandb-credd: {said}"));
        if let Some(next) = error.downcast_ref::<Error>().and_then(next_step) {
            output::eprint_line(&format!("  next: {next}"));
        }
    }
    exit
}

/// What helps against what is wrong with the configuration, or a file.
fn next_step(error: &Error) -> Option<String> {
    let checks = std::env::args().nth(1).is_some_and(|subcommand| subcommand == "check");
    Some(match &error.reason {
        Reason::Mistakes { path, .. } if checks => format!("edit {}, then: wandb-cred check", path.display()),
        Reason::Mistakes { .. } => "wandb-cred check".to_owned(),
        Reason::File { fault: FileFault::Missing, .. } if error.stage == Stage::Configuration => {
            "wandb-cred init, or unset WANDB_CRED_CONFIG".to_owned()
        }
        Reason::File {
            path,
            fault: FileFault::NotARegularFile | FileFault::TooLarge | FileFault::Malformed,
        } if error.stage == Stage::Configuration => {
            format!("move {} away, then: wandb-cred init", path.display())
        }
        Reason::Variable { name } => format!("unset {name}"),
        _ => return None,
    })
}

fn exit_for(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        failure.exit
    } else if let Some(error) = error.downcast_ref::<output::Error>() {
        error.into()
    } else if let Some(error) = error.downcast_ref::<Error>() {
        match error.stage {
            Stage::Configuration | Stage::Files => error.into(),
            // A first login asks a W&B server where to sign in, and it gave no usable answer.
            Stage::Identity | Stage::Exchange | Stage::SignIn => Exit::Unavailable,
        }
    } else if let Some(error) = error.downcast_ref::<bind::Error>() {
        // A folder that others can reach stays so until somebody fixes it.
        if matches!(error, bind::Error::Place(_)) { Exit::Configuration } else { Exit::Unavailable }
    } else {
        Exit::Software
    }
}

fn places(source: &Source) -> anyhow::Result<Places> {
    let mut places = Places::find(&Env::system())?;
    if let Some(config) = &source.config {
        places.config.clone_from(config);
    }
    Ok(places)
}

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
        let message = format!(
            "only {limit} files may be open here (ulimit -n), and the daemon needs at least {MIN_FILES}"
        );
        return Err(Failure::new(Exit::System, message).into());
    }
    let beside_a_job = args.lifetime_of.is_some() || args.until_unneeded.is_some();
    if beside_a_job {
        // Out of the terminal's process group: Ctrl-C is for the job, which still needs tokens to end well.
        let _ = rustix::process::setsid();
    }
    let env = Env::system();
    let mut places = places(&args.source)?;
    // A private daemon's standard error is the job's own, and one that is shared has a file: only what matters goes there.
    let level = args.log_level.unwrap_or(if beside_a_job { LevelFilter::WARN } else { LevelFilter::INFO });
    let for_a_job = fed::is_for_a_job(args.feed.is_some(), &places.runtime);
    let lifetime = Lifetime::new(args.lifetime_of, args.until_unneeded, for_a_job, &places.runtime)?;
    if matches!(lifetime, Lifetime::OnDemand { .. }) {
        paths::private_dir(&places.runtime)?;
        log::init_file(&places.runtime.join(LOG_FILE), level)?;
    } else {
        log::init(args.log_format, level);
    }
    if beside_a_job {
        // The job's folder may be removed or unmounted while we run.
        places.config = std::path::absolute(&places.config).context("the configuration's path")?;
        std::env::set_current_dir("/").context("cannot change to /")?;
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(env, places, lifetime, args.feed, signals));
    // A provider's file on a dead mount may hold a blocking thread for ever.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Sockets, timers and files of a few profiles, and some callers.
const MIN_FILES: u64 = 64;

async fn serve(
    env: Env,
    places: Places,
    lifetime: Lifetime,
    feed: Option<PathBuf>,
    signals: signals::Handlers,
) -> anyhow::Result<()> {
    if feed.is_some() {
        fed::prepare(&places)?;
    }
    let mut bound = bind::bind(&places.socket).map_err(|error| match paths::socket_variable(&env) {
        Some(variable) => {
            anyhow::Error::from(error).context(format!("the place that {variable} gives the socket"))
        }
        None => error.into(),
    })?;
    let config = match &feed {
        // A fed daemon needs none, and a mistake in one does not concern it.
        Some(_) => Ok(Config::default()),
        None => load(&places.config, &env).await,
    };
    let config = config.inspect_err(|error| bound.refuse(error))?;
    let clock = Clock::system();
    let parts = Parts { env: env.clone(), http: Http::new(clock.clone()), clock: clock.clone() };
    let socket = bound.path().unwrap_or_else(|| places.socket.clone());
    let runtime = places.runtime.clone();
    let mut profiles = ProfileSet::new(places, parts);
    let mut directory = profiles.apply(&config);
    let mut fed = feed.as_deref().map(|feed| fed::Fed::start(feed, &clock)).transpose()?;
    if fed.is_some() {
        directory.awaited = Some(fed::AWAITED.to_owned());
    }
    let listener = bound.take_listener()?;
    let state = Arc::new(State::new(directory, clock, socket));
    state.take_up_jobs().await;
    let (stop_proxy, stopping) = watch::channel(false);
    let proxy = tokio::spawn(proxy_thread::run(Arc::clone(&state.proxy), stopping));
    let (mut stop, stopping) = watch::channel(false);
    let mut server = server::spawn(listener, Arc::clone(&state), stopping);
    let guests = guests::Guests::open(&runtime, &state)?;
    let file = FileId::of(&state.socket);
    let mut rebound = Box::pin(rebind::rebound(state.socket.clone(), file, state.clock.clone()));
    info!(socket = %state.socket.display(), profiles = state.directory().members.len(), "serving");
    let mut exporters = server::Exporters::default();
    if matches!(lifetime, Lifetime::Service) {
        exporters.configure(&state);
    }
    service::ready();
    let mut signals = signals.listen().context("cannot listen for signals")?;
    let watchdog = service::watchdog(&state.clock);
    tokio::pin!(watchdog);
    if matches!(lifetime, Lifetime::OnDemand { .. }) {
        service::leave_terminal();
    }
    let mut told = false;
    let mut over = Box::pin(lifetime.over(&state, &state.clock, told));
    let start_lock = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                // There is nothing to read again.
                Signal::Hangup if feed.is_some() => {}
                Signal::Hangup => {
                    service::reloading();
                    profiles.reload(&env, &state).await;
                    if matches!(lifetime, Lifetime::Service) {
                        exporters.configure(&state);
                    }
                    service::ready();
                }
                Signal::Terminate if lifetime.outlives_signals(&state) => {
                    info!("told to stop; going on until the last job has ended");
                    told = true;
                    over = Box::pin(lifetime.over(&state, &state.clock, told));
                }
                Signal::Terminate => break lifetime.leave(),
            },
            lock = &mut over => break lock,
            goes_on = fed::next(&mut fed, &mut profiles, &state) => if !goes_on { break None },
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
    };
    drop(over);
    info!("stopping");
    service::stopping();
    exporters.remove_textfile();
    drop(exporters);
    // New connections go nowhere from here on, so take the name away first.
    drop((bound, guests));
    stop.send_replace(true);
    stop_proxy.send_replace(true);
    let _ = server.await;
    let _ = proxy.await;
    profiles.drain().await;
    state.close_audit_log().await;
    if !matches!(lifetime, Lifetime::Service) {
        // This folder was made for us alone: nothing of it outlives us, tokens least of all.
        drop(profiles);
        state.close_job_record().await;
        if runtime.file_name().is_some_and(|name| name.to_string_lossy().starts_with("exec-"))
            || paths::is_on_demand(&runtime)
            || fed::is_for_a_job(feed.is_some(), &runtime)
        {
            let _ = std::fs::remove_dir_all(runtime);
        }
    }
    if let Some(lock) = start_lock {
        lock.remove();
    }
    Ok(())
}

/// In the folder of a daemon that is started on demand.
const LOG_FILE: &str = "daemon.log";

async fn load(path: &Path, env: &Env) -> Result<Config, Error> {
    match Config::load_in_time(path, env).await {
        // Perhaps the system gives no thread to read it on.
        Err(error) if error.file_fault() == Some(&FileFault::Unreadable) => Config::load(path, env),
        loaded => loaded,
    }
}

/// For libraries: our own work that blocks goes to `blocking`.
const BLOCKING_THREADS: usize = 8;

/// Idle threads end soon: an idle daemon is one thread.
const BLOCKING_IDLE: Duration = Duration::from_secs(1);
