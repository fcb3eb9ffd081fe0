//! Wiring: reads the configuration, builds everything in order, spawns it, reloads, drains.
//!
//! The only module that spawns top-level tasks. One thread: measured, one beats two for this work, and
//! nothing on it may block.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use rustix::process::Pid;
use sha2::{Digest as _, Sha256};
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::env::Env;
use crate::http::Http;
use crate::paths::Places;
use crate::profile::{self, Parts};
use crate::sdk_files::Files;
use crate::server::{self, Directory, Member, State, bind};
use crate::{login, oidc, process, provider};

mod background;
mod doctor;
mod first_login;
mod init;
mod log;
mod service;
mod signals;

use signals::Signal;

/// Keeps W&B access tokens fresh and serves them on a Unix socket.
#[derive(Parser)]
#[command(name = "wandb-credd", version, disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Serve (the default)
    Run(Run),
    /// Say whether the configuration is valid
    Check(Source),
    /// Write a configuration for what the environment offers
    Init(init::Args),
    /// Write a configuration for signing in, if there is none
    FirstLogin(first_login::Args),
    /// Find out what keeps W&B from accepting us, and what helps
    Doctor(doctor::Args),
}

#[derive(clap::Args)]
struct Source {
    /// The configuration file, instead of the usual place
    #[arg(long, value_name = "PATH", env = "WANDB_CRED_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    source: Source,
    /// How to log; the journal with its fields when run by systemd and this is not given
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<log::Format>,
    /// off, error, warn, info, debug or trace; info unless given, warn beside a job
    #[arg(long, value_name = "LEVEL", env = "WANDB_CRED_LOG")]
    log_level: Option<LevelFilter>,
    /// End when this process ends
    #[arg(long, value_name = "PID")]
    lifetime_of: Option<i32>,
    /// Go on in the background once the socket answers
    #[arg(long)]
    background: bool,
}

/// The command line, for tests of what pages and messages name.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

pub fn main() -> ExitCode {
    process::harden();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match args.command {
        None => run(args.run),
        Some(Command::Run(run_args)) => run(run_args),
        Some(Command::Check(source)) => check(&source),
        Some(Command::Init(args)) => init::run(&args),
        Some(Command::FirstLogin(args)) => first_login::run(&args),
        Some(Command::Doctor(args)) => return doctor::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wandb-credd: {error:#}");
            exit_code(&error).into()
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<config::Error>() || error.is::<crate::paths::Error>() || error.is::<InvalidProfiles>() {
        CONFIG
    } else if let Some(error) = error.downcast_ref::<init::Error>() {
        error.exit_code()
    } else if error.is::<oidc::discover::Error>() {
        UNAVAILABLE
    } else if let Some(error) = error.downcast_ref::<first_login::Error>() {
        error.exit_code()
    } else if let Some(error) = error.downcast_ref::<bind::Error>() {
        // A folder that is not ours alone stays so until somebody mends it.
        if matches!(error, bind::Error::Place(_)) { CONFIG } else { UNAVAILABLE }
    } else {
        error.downcast_ref::<background::Failed>().map_or(SOFTWARE, |failed| failed.code)
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
    println!("ok: {} profile(s): {}", config.profiles.len(), config.names().collect::<Vec<_>>().join(", "));
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

fn run(args: Run) -> anyhow::Result<()> {
    if args.background {
        return Ok(background::spawn(&places(&args.source)?.socket)?);
    }
    // Before anything that takes time: a signal must never meet the default handler once we are known.
    let signals = signals::install().context("cannot install signal handlers")?;
    if args.lifetime_of.is_some() {
        // Out of the terminal's process group: Ctrl-C is for the job, which still needs tokens to end well.
        let _ = rustix::process::setsid();
    }
    // Beside a job our standard error is the job's own: only what matters goes there.
    let level = if args.lifetime_of.is_some() { LevelFilter::WARN } else { LevelFilter::INFO };
    log::init(args.log_format, args.log_level.unwrap_or(level));
    let env = Env::system();
    let places = places(&args.source)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(env, places, args.lifetime_of, signals));
    // A provider's file on a dead mount may hold a blocking thread for ever.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn serve(
    env: Env,
    places: Places,
    lifetime_of: Option<i32>,
    signals: signals::Pending,
) -> anyhow::Result<()> {
    let mut bound = bind::bind(&places.socket)?;
    let owner_ended = watch_owner(lifetime_of)?;
    let config = Config::load(&places.config, &env)?;
    let clock = Clock::system();
    let parts = Parts { env: env.clone(), http: Http::new(clock.clone()), clock: clock.clone() };
    let mut household = Household { places, parts, running: BTreeMap::new() };
    let directory = household.settle(&config);
    let socket = bound.path().unwrap_or_else(|| household.places.socket.clone());
    let listener = bound.take_listener()?;
    let state = Arc::new(State::new(directory, clock, socket, household.parts.http.clone()));
    let (stop, stopping) = watch::channel(false);
    let server = server::spawn(listener, Arc::clone(&state), stopping);
    info!(socket = %state.socket.display(), profiles = state.directory().members.len(), "serving");
    service::ready();
    let mut signals = signals.listen().context("cannot listen for signals")?;
    let watchdog = service::watchdog(&state.clock);
    tokio::pin!(owner_ended, watchdog);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    service::reloading();
                    household.reload(&env, &state);
                    service::ready();
                }
                Signal::Stop => break,
            },
            () = &mut owner_ended => break,
            () = &mut watchdog => {}
        }
    }
    info!("stopping");
    service::stopping();
    // New connections go nowhere from here on, so take the name away first.
    drop(bound);
    stop.send_replace(true);
    let _ = server.await;
    household.settled().await;
    if lifetime_of.is_some() {
        // `exec` made this folder for us alone: nothing of it outlives the job, tokens least of all.
        let folder = household.places.runtime.clone();
        drop(household);
        if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("exec-")) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
    Ok(())
}

/// Ends when the process that this daemon was started for does.
fn watch_owner(pid: Option<i32>) -> anyhow::Result<impl Future<Output = ()>> {
    let end = match pid {
        Some(pid) => {
            let pid = Pid::from_raw(pid).context("--lifetime-of needs a process number")?;
            Some(process::end_of(pid).context("the process of --lifetime-of does not run")?)
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

/// The profiles that run, and what new ones are built with.
struct Household {
    places: Places,
    parts: Parts,
    running: BTreeMap<String, Running>,
}

struct Running {
    member: Arc<Member>,
    fingerprint: String,
    /// Aborts the profile's tasks when dropped.
    _tasks: JoinSet<()>,
}

impl Household {
    /// Brings what runs in line with `config`: what did not change goes on with its tokens.
    fn settle(&mut self, config: &Config) -> Directory {
        let mut before = std::mem::take(&mut self.running);
        for (name, profile) in &config.profiles {
            let fingerprint = fingerprint(name, profile);
            let running = match before.remove(name) {
                Some(running) if running.fingerprint == fingerprint => running,
                _ => self.start(name, profile.clone(), fingerprint),
            };
            self.running.insert(name.clone(), running);
        }
        for (name, mistake) in &config.broken {
            let path = config.path.as_deref().unwrap_or(&self.places.config).display().to_string();
            let explained = format!("{path}{mistake}");
            error!(profile = name, error = explained, "this profile is configured wrong; the others go on");
            let profile = profile::Config::new(provider::Config::Invalid(explained.clone()));
            let running = self.start(name, profile, explained);
            self.running.insert(name.clone(), running);
        }
        Directory {
            general: config.general.clone(),
            config: config.path.clone(),
            default: config.default_profile().map(str::to_owned),
            members: self.running.iter().map(|(name, r)| (name.clone(), Arc::clone(&r.member))).collect(),
        }
    }

    fn start(&self, name: &str, config: profile::Config, fingerprint: String) -> Running {
        let files = config.sdk_files.then(|| {
            Arc::new(Files::new(self.places.profile(name), config.base_url.clone(), fingerprint.clone()))
        });
        let now = self.parts.clock.now();
        let restored = files.as_ref().and_then(|files| files.restore(now));
        if restored.is_some() {
            info!(profile = name, "took over the access token of an earlier daemon");
        }
        let (profile, loops) = config.build(name, &self.parts, restored);
        let profile = Arc::new(profile);
        let mut tasks = JoinSet::new();
        tasks.spawn(loops.run(Arc::clone(&profile)));
        if let Some(files) = &files {
            tasks.spawn(Arc::clone(files).run(Arc::clone(&profile), self.parts.clock.clone()));
        }
        if let Some(session) = &profile.session {
            let clock = self.parts.clock.clone();
            tasks.spawn(login::follow::follow(Arc::clone(&profile), Arc::clone(session), clock));
        }
        let member = Arc::new(Member::new(profile, files));
        Running { member, fingerprint, _tasks: tasks }
    }

    /// Waits for refreshes under way: a refresh token that was redeemed must reach its store.
    async fn settled(&self) {
        let all = async {
            for running in self.running.values() {
                if let Some(session) = &running.member.profile.session {
                    session.settle().await;
                }
            }
        };
        let _ = tokio::time::timeout(SETTLE, all).await;
    }

    /// SIGHUP. Validated whole before anything is swapped; profiles that failed look again.
    fn reload(&mut self, env: &Env, state: &State) {
        match Config::load(&self.places.config, env).and_then(Config::strict) {
            Ok(config) => {
                let directory = self.settle(&config);
                let profiles = directory.members.len();
                state.swap(directory);
                for running in self.running.values() {
                    running.member.profile.look_again();
                }
                info!(profiles, "configuration reloaded");
            }
            Err(error) => warn!(%error, "the new configuration is wrong, the old one stays in force"),
        }
    }
}

/// Names a profile's configuration without showing it.
fn fingerprint(name: &str, profile: &profile::Config) -> String {
    // `Debug` redacts a secret, and a changed one must count as a change.
    let secret = profile.provider.secret().map_or("", |secret| secret.expose());
    let digest = Sha256::new_with_prefix(format!("{name} {profile:?}")).chain_update(secret).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// sysexits.h
const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const SOFTWARE: u8 = 70;
const OUTPUT: u8 = 74;
const CONFIG: u8 = 78;

/// For files and name look-ups, which are the only things that block.
const BLOCKING_THREADS: usize = 8;

/// A refresh under way at the end: one request, and one write to a keyring.
const SETTLE: Duration = Duration::from_secs(10);

/// Idle threads end soon: an idle daemon is one thread.
const BLOCKING_IDLE: Duration = Duration::from_secs(1);
