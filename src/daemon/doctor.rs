//! `wandb-credd doctor`: checks this machine, and has the daemon check the rest; if none answers, does so itself.
//!
//! The daemon's view is the one that counts: its environment is not this shell's.

use std::process::ExitCode;
use std::time::Duration;

use super::Source;
use crate::api;
use crate::client::{self, Client, encode};
use crate::clock::Clock;
use crate::config::Config;
use crate::doctor::{self, Context, Report, Step, environment, loopback, machine, sdk};
use crate::env::Env;
use crate::error::{Error, Exit, FileFault, Reason};
use crate::exchange::Exchange;
use crate::http::Http;
use crate::output::{self, Waiting};
use crate::paths::{self, Places};
use crate::profile::{self, Parts};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The profile to examine; the default one unless given
    #[arg(long, short, value_name = "NAME", env = "WANDB_CRED_PROFILE")]
    profile: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print what is fine too
    #[arg(long, short)]
    verbose: bool,
    /// Check from this shell, even if a daemon answers
    #[arg(long)]
    alone: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let env = Env::system();
    let waiting = Waiting::begin(|| "checking each step to W&B (Ctrl-C ends)".to_owned());
    let (doctor, about) = check(args, &env);
    drop(waiting);
    let text = if args.json {
        serde_json::to_string_pretty(&doctor).expect("our own types always serialise") + "\n"
    } else {
        doctor::report::text(&doctor, &about, output::Style::detect(&env).has_colour(), args.verbose)
    };
    match output::print(&text) {
        Err(error @ output::Error::Failed(_)) => super::report(&error.into()).into(),
        Ok(()) | Err(output::Error::Closed) => doctor.exit.into(),
    }
}

/// The findings, and a line that says what was checked.
fn check(args: &Args, env: &Env) -> (api::Doctor, String) {
    let mut report = Report::default();
    let wanted = args.profile.as_deref();
    let stop = |report: Report| (report.finish(wanted.unwrap_or("-")), "no profile".to_owned());
    let places = match super::places(&args.source) {
        Ok(places) => places,
        Err(error) => {
            report.fail(
                Step::Configuration,
                Exit::Configuration,
                format!("{error:#}"),
                "set HOME, and absolute paths",
            );
            return stop(report);
        }
    };
    let loaded = Config::load(&places.config, env);
    let chosen = match &loaded {
        Ok(config) => choose(config, wanted, &places, &mut report),
        Err(error) => {
            unusable(error, &mut report);
            None
        }
    };
    let name = chosen.as_ref().map(|(name, _)| name.as_str());
    machine::folders(&places, name, &mut report);
    let client = Client::find(env);
    let status = client.as_ref().ok().and_then(|client| machine::daemon(client, &places, &mut report));
    machine::service(env, status.is_some(), &mut report);
    let base_url = chosen.as_ref().map(|(_, profile)| profile.base_url.clone());
    let host = base_url.as_ref().and_then(|base_url| base_url.url().host_str().map(str::to_owned));
    if !loopback::check(env, status.as_ref(), &mut report) {
        sdk::environment(env, base_url.as_ref(), &places.runtime.join(paths::PROFILES), &mut report);
    }
    environment::elsewhere(env, host.as_deref(), &mut report);
    let Some((name, profile)) = chosen else {
        report.skip(&[Step::Provider, Step::Server, Step::Exchange], "needs a valid profile");
        return stop(report);
    };
    let about = format!("profile {name}: {} at {}", profile.kind(), profile.base_url);
    let known = status.is_some_and(|status| status.profiles.iter().any(|known| known.name == name));
    let asked = match &client {
        Ok(client) if known && !args.alone => ask(client, &name, env, &mut report),
        _ => None,
    };
    match asked {
        Some(findings) => report.extend(findings),
        // A refresh token that rotates has one owner: if two redeem it, the whole session is revoked.
        None if profile.kind() == "oidc" && client.as_ref().is_ok_and(|client| client.accepts()) => {
            let why = "the daemon owns this sign-in, and cannot be asked: restart it, or stop it first";
            report.skip(&[Step::Provider, Step::Server, Step::Exchange], why);
        }
        None => match run_here(&name, profile, env) {
            Ok(findings) => report.append(findings),
            Err(error) => {
                report.fail(
                    Step::Provider,
                    Exit::Configuration,
                    format!("{error:#}"),
                    "free some memory and threads",
                );
            }
        },
    }
    (report.finish(&name), about)
}

fn choose(
    config: &Config,
    wanted: Option<&str>,
    places: &Places,
    report: &mut Report,
) -> Option<(String, profile::Config)> {
    let file = config.path.as_deref().unwrap_or(&places.config).display();
    let known = || config.names().collect::<Vec<_>>().join(", ");
    let mut bad = |found: String, remedy: String| {
        report.fail(Step::Configuration, Exit::Configuration, found, remedy);
        None
    };
    let Some(name) = wanted.or(config.default_profile()) else {
        let remedy = format!("choose one: wandb-cred doctor --profile NAME, of {}", known());
        return bad(format!("{file} has several profiles and no default-profile"), remedy);
    };
    if let Some(mistake) = config.broken.get(name) {
        return bad(format!("{file}{mistake}"), FIX_LINE.into());
    }
    let Some(profile) = config.profiles.get(name) else {
        return bad(
            format!("there is no profile {name:?} in {file}"),
            format!("the profiles are: {}", known()),
        );
    };
    let found = match &config.path {
        Some(path) => format!("{}: profile {name}", path.display()),
        None => format!("no file at {}; the environment alone decides", places.config.display()),
    };
    match config.broken.iter().next() {
        Some((other, mistake)) => report.warn(
            Step::Configuration,
            format!("{found}; profile {other} is not valid: {file}{mistake}"),
            "fix that line",
        ),
        None => report.ok(Step::Configuration, found),
    }
    Some((name.to_owned(), profile.clone()))
}

fn unusable(error: &Error, report: &mut Report) {
    let remedy = match &error.reason {
        Reason::Mistakes { .. } => FIX_LINE.to_owned(),
        Reason::Variable { name } if name == "WANDB_BASE_URL" => {
            "export WANDB_BASE_URL=https://api.wandb.ai".to_owned()
        }
        Reason::File { fault: FileFault::Missing, .. } => {
            "wandb-cred init writes one for what it finds on this machine".to_owned()
        }
        // Who can write it can run programs as this user; who can only read it gets the secret in it.
        Reason::File { path, fault: FileFault::Loose { mode } } => {
            let change = if mode & 0o022 != 0 { "go-w" } else { "600" };
            format!("chmod {change} {}", path.display())
        }
        Reason::File { fault: FileFault::TooLarge, .. } => {
            "point WANDB_CRED_CONFIG to the configuration file".to_owned()
        }
        _ => "make this user its owner, and let this user read it".to_owned(),
    };
    report.fail(Step::Configuration, Exit::from(error), error.to_string(), remedy);
}

/// What the daemon finds. `None`, with a warning, if it cannot be asked.
fn ask(client: &Client, name: &str, env: &Env, report: &mut Report) -> Option<Vec<api::Finding>> {
    match client.get::<api::Doctor>(&format!("/v1/doctor?profile={}", encode(name)), DAEMON_TIMEOUT) {
        Ok(doctor) => {
            environment::compare(&doctor.environment, env, report);
            Some(doctor.findings)
        }
        Err(client::Error::Problem(problem)) if problem.kind == api::ProblemKind::NotFound => None,
        Err(error) => {
            let found =
                format!("the daemon cannot run the checks: {error}; the rest was checked from this shell");
            report.warn(Step::Daemon, found, "restart the daemon if this goes on");
            None
        }
    }
}

fn run_here(name: &str, config: profile::Config, env: &Env) -> anyhow::Result<Report> {
    let clock = Clock::system();
    let parts = Parts { env: env.clone(), http: Http::new(clock.clone()), clock };
    let runtime = super::runtime()?;
    let kind = config.kind();
    let Some(provider) = config.provider() else {
        let mut report = Report::default();
        report.fail(
            Step::Provider,
            Exit::Unavailable,
            "no daemon takes tokens from the other one",
            "wandb-credd &",
        );
        report.skip(&[Step::Server, Step::Exchange], "needs a daemon");
        return Ok(report);
    };
    let provider = provider.clone().build_or_explain(config.context(name, &parts));
    let http = config.http(&parts);
    let exchange = Exchange::new(config.base_url.url(), http.clone());
    let cx = Context {
        profile: name,
        base_url: &config.base_url,
        audience: config.audience.as_deref(),
        provider: kind,
        env,
        clock: &parts.clock,
        http: &http,
    };
    let session = provider.session();
    let source = doctor::Source::Direct { provider, exchange };
    let report = runtime.block_on(async {
        let report = doctor::diagnose(&cx, &source).await;
        // What was redeemed must reach the store, also when the time is up.
        if let Some(session) = session {
            let _ = session.close().await;
        }
        report
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(report)
}

/// Longer than the daemon allows itself.
const DAEMON_TIMEOUT: Duration = doctor::TIMEOUT.saturating_add(Duration::from_secs(10));

const FIX_LINE: &str = "fix that line; `wandb-cred check` says whether the file is valid";
