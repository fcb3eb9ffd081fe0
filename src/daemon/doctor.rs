//! `wandb-credd doctor`: checks this machine, and has the daemon check each profile; if none answers, does so itself.
//!
//! The daemon's view is the one that counts: its environment is not this shell's.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use super::Source;
use crate::api;
use crate::client::{self, Client, encode};
use crate::clock::Clock;
use crate::config::Config;
use crate::doctor::text::Examination;
use crate::doctor::{self, Context, Report, Step, environment, loopback, machine, sdk};
use crate::env::Env;
use crate::error::{Error, Exit, FileFault, Reason};
use crate::exchange::Exchange;
use crate::http::Http;
use crate::output;
use crate::paths::{self, Places};
use crate::profile::{self, BaseUrl, Parts};

mod screen;
use screen::Screen;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The profile to examine; all unless given
    #[arg(long, short, value_name = "NAME")]
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
    let screen = Screen::new(&env, args.json, args.verbose);
    let examination = examine(args, &env, &screen);
    match screen.end(&examination) {
        Err(error @ output::Error::Failed(_)) => super::report(&error.into()).into(),
        Ok(()) | Err(output::Error::Closed) => examination.exit().into(),
    }
}

/// What every part needs.
struct Examiner<'a> {
    args: &'a Args,
    env: &'a Env,
    screen: &'a Screen,
    places: Places,
    client: Result<Client, Error>,
    /// The daemon's word, if it answers.
    status: Option<api::Status>,
    /// The variables of which it was said that the daemon's are others.
    said: BTreeSet<&'static str>,
}

fn examine(args: &Args, env: &Env, screen: &Screen) -> Examination {
    let mut examination = Examination::default();
    let mut report = screen.report(format!("wandb-cred doctor {}, this machine", env!("CARGO_PKG_VERSION")));
    let places = match super::places(&args.source) {
        Ok(places) => places,
        Err(error) => {
            let remedy = match error.downcast_ref::<Error>().map(|error| &error.reason) {
                Some(Reason::Variable { name }) if name == "HOME" => "export HOME=/home/NAME".to_owned(),
                Some(Reason::Variable { name }) => match paths::socket_variable(env) {
                    Some(variable) => format!("unset {variable}"),
                    None => format!("unset {name}"),
                },
                _ => "set HOME, and absolute paths".to_owned(),
            };
            report.fail(Step::Configuration, Exit::Configuration, format!("{error:#}"), remedy);
            examination.add(None, report);
            return examination;
        }
    };
    let loaded = Config::load(&places.config, env);
    let wanted: Vec<String> = match (&args.profile, &loaded) {
        (Some(name), _) => vec![name.clone()],
        (None, Ok(config)) => config.names().map(str::to_owned).collect(),
        (None, Err(_)) => Vec::new(),
    };
    match &loaded {
        Ok(config) => configuration(config, args.profile.is_some(), &places, &mut report),
        Err(error) => unusable(error, &mut report),
    }
    report.begin("folders, daemon and service");
    machine::folders(env, &places, wanted.iter().map(String::as_str), &mut report);
    let client = Client::find(env);
    let status = client.as_ref().ok().and_then(|client| machine::daemon(env, client, &places, &mut report));
    machine::service(env, status.is_some(), &mut report);
    report.begin("the environment of this shell");
    let urls = base_urls(loaded.as_ref().ok(), &wanted);
    if !loopback::check(env, status.as_ref(), &mut report) {
        let default = loaded.as_ref().ok().and_then(Config::default_profile);
        let server = match env.var("WANDB_BASE_URL").and_then(|text| text.parse::<BaseUrl>().ok()) {
            // Of several servers, the one that is meant.
            Some(set) => urls.iter().find(|(_, url)| url.spellings().contains(&set.as_str())),
            None => None,
        };
        let server =
            server.or_else(|| urls.iter().find(|(name, _)| Some(name.as_str()) == default)).or(urls.first());
        let ours = places.runtime.join(paths::PROFILES);
        sdk::environment(env, server.map(|(_, url)| url), &ours, &mut report);
    }
    let hosts = urls.iter().filter_map(|(_, url)| url.url().host_str());
    environment::elsewhere(env, hosts, &mut report);
    if let (Some(status), Ok(config)) = (&status, &loaded)
        // Another file is said of the daemon as a whole.
        && status.config == config.path
    {
        environment::reloaded(status, &config.profiles, &mut report);
    }
    let Ok(config) = loaded else {
        report.skip(&[Step::Provider, Step::Server, Step::Exchange], "needs a valid profile");
        examination.add(None, report);
        return examination;
    };
    examination.add(None, report);
    let mut examiner = Examiner { args, env, screen, places, client, status, said: BTreeSet::new() };
    for name in wanted {
        let part = examiner.profile(&name, &config);
        examination.add(Some(name), part);
    }
    examination
}

/// The servers of the profiles that are looked at.
fn base_urls(config: Option<&Config>, wanted: &[String]) -> Vec<(String, BaseUrl)> {
    let of = |name: &String| Some((name.clone(), config?.profiles.get(name)?.base_url.clone()));
    wanted.iter().filter_map(of).collect()
}

/// The file as a whole.
fn configuration(config: &Config, named: bool, places: &Places, report: &mut Report) {
    let Some(path) = &config.path else {
        let found = format!("no file at {}; the environment alone decides", places.config.display());
        return report.ok(Step::Configuration, found);
    };
    let (file, names) = (path.display(), config.names().collect::<Vec<_>>().join(", "));
    match (config.default_profile(), named, config.names().next()) {
        (None, false, Some(first)) => report.fail(
            Step::Configuration,
            Exit::Configuration,
            format!("{file} has several profiles ({names}) and no default-profile: a command must name one"),
            format!("export WANDB_CRED_PROFILE={first}, or add to the top of the file: default-profile = \"{first}\""),
        ),
        _ => report.ok(Step::Configuration, format!("{file}: {names}")),
    }
}

impl Examiner<'_> {
    fn profile(&mut self, name: &str, config: &Config) -> Report {
        let file = config.path.as_deref().unwrap_or(&self.places.config).display();
        let about =
            config.profiles.get(name).map(|profile| format!(": {} at {}", profile.kind(), profile.base_url));
        let mut report = self.screen.report(format!("profile {name}{}", about.unwrap_or_default()));
        let Some(profile) = config.profiles.get(name) else {
            let (found, remedy) = match config.broken.get(name) {
                Some(mistake) => (format!("{file}{mistake}"), FIX_LINE.to_owned()),
                None => {
                    let names: Vec<_> = config.names().collect();
                    let nearest = crate::spelling::nearest(name, names.iter().copied()).unwrap_or(names[0]);
                    let remedy = format!(
                        "wandb-cred doctor --profile {nearest} (the profiles are: {})",
                        names.join(", ")
                    );
                    (format!("there is no profile {name:?} in {file}"), remedy)
                }
            };
            report.fail(Step::Configuration, Exit::Configuration, found, remedy);
            report.skip(&[Step::Provider, Step::Server, Step::Exchange], "needs a valid profile");
            return report;
        };
        let known =
            self.status.as_ref().is_some_and(|status| status.profiles.iter().any(|known| known.name == name));
        let client = self.client.as_ref();
        let asked = match client {
            Ok(client) if known && !self.args.alone => {
                report.begin("each step to W&B, by the daemon");
                let asked = ask(client, name, &mut report);
                if let (Some(doctor), Some(status)) = (&asked, &self.status) {
                    let restart = machine::restart(self.env, status);
                    environment::compare(
                        doctor,
                        profile.kind(),
                        self.env,
                        &restart,
                        &mut self.said,
                        &mut report,
                    );
                }
                asked
            }
            _ => None,
        };
        match asked {
            Some(doctor) => report.extend(doctor.findings),
            // A refresh token that rotates has one owner: if two redeem it, the whole session is revoked.
            None if profile.kind() == "oidc" && client.is_ok_and(|client| client.accepts()) => {
                let why = "the daemon owns this sign-in, and cannot be asked: restart it, or stop it first";
                report.skip(&[Step::Provider, Step::Server, Step::Exchange], why);
            }
            None => {
                if let Err(error) = run_here(name, profile.clone(), self.env, &mut report) {
                    let found = format!("{error:#}");
                    report.fail(Step::Provider, Exit::Configuration, found, "free some memory and threads");
                }
            }
        }
        report
    }
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
fn ask(client: &Client, name: &str, report: &mut Report) -> Option<api::Doctor> {
    match client.get::<api::Doctor>(&format!("/v1/doctor?profile={}", encode(name)), DAEMON_TIMEOUT) {
        Ok(doctor) => Some(doctor),
        Err(client::Error::Problem(problem)) if problem.kind == api::ProblemKind::NotFound => None,
        Err(error) => {
            let found =
                format!("the daemon cannot run the checks: {error}; the rest was checked from this shell");
            report.warn(
                Step::Daemon,
                found,
                "restart the daemon if this goes on: systemctl --user restart wandb-cred.service",
            );
            None
        }
    }
}

fn run_here(name: &str, config: profile::Config, env: &Env, report: &mut Report) -> anyhow::Result<()> {
    let clock = Clock::system();
    let parts = Parts { env: env.clone(), http: Http::new(clock.clone()), clock };
    let runtime = super::runtime()?;
    let kind = config.kind();
    let Some(provider) = config.provider() else {
        let found = "no daemon takes tokens from the other one";
        report.fail(Step::Provider, Exit::Unavailable, found, "wandb-credd &");
        report.skip(&[Step::Server, Step::Exchange], "needs a daemon");
        return Ok(());
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
    runtime.block_on(async {
        doctor::diagnose(&cx, &source, report).await;
        // What was redeemed must reach the store, also when the time is up.
        if let Some(session) = session {
            let _ = session.close().await;
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

/// Longer than the daemon allows itself.
const DAEMON_TIMEOUT: Duration = doctor::TIMEOUT.saturating_add(Duration::from_secs(10));

const FIX_LINE: &str = "fix that line; `wandb-cred check` says whether the file is valid";
