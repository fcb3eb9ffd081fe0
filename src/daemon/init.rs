//! `wandb-credd init`: writes a configuration file for the environment.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::Source;
use super::failure::Failure;
use crate::api;
use crate::atomic_file;
use crate::client::Client;
use crate::clock::Clock;
use crate::config::Config;
use crate::env::Env;
use crate::error::{Error, Exit, Mistake, Reason, Stage};
use crate::http::Http;
use crate::output;
use crate::paths::{self, Places};
use crate::profile::Parts;
use crate::prompt::ask;
use crate::provider::{self, Detection};
use crate::setup_args::InitArgs;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    init: InitArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let places = super::places(&args.source)?;
    let config = &places.config;
    if !args.init.force && !args.init.dry_run && config.symlink_metadata().is_ok() {
        return Err(exists(config).into());
    }
    let found = detect(args.init.audience.as_deref(), &Env::system())?;
    if args.init.dry_run {
        return Ok(output::print(&found)?);
    }
    write(&places, &found, args.init.force)?;
    let mut text = format!("wrote {}:\n\n", config.display());
    for line in found.lines() {
        text += if line.is_empty() { "\n" } else { "    " };
        if !line.is_empty() {
            text += line;
            text += "\n";
        }
    }
    text += "\nnext: wandb-cred check, then wandb-cred exec -- CMD or wandb-cred service install\n";
    Ok(output::print(&text)?)
}

/// A configuration for the best identity source that was found; comments name the others.
fn detect(audience: Option<&str>, env: &Env) -> anyhow::Result<String> {
    let clock = Clock::system();
    let cx = provider::Context {
        profile: "default".to_owned(),
        audience: None,
        base_url: None,
        http: Http::new(clock.clone()),
        env: env.clone(),
        clock,
    };
    let detections = super::runtime()?.block_on(provider::survey(&cx));
    let (found, missing): (Vec<_>, Vec<_>) = detections.iter().partition(|detection| detection.found);
    let Some(best) = found.first() else {
        let missing: Vec<_> =
            missing.iter().map(|other| format!("  {}: {}", other.kind, other.why)).collect();
        let message =
            format!("found no identity source in this environment; looked for:\n{}", missing.join("\n"));
        let next = "wandb-cred login --issuer URL --client-id ID, or write the file (man wandb-cred-config)";
        return Err(Failure::next(Exit::Configuration, message, next).into());
    };
    let others = &found[1..];
    let without = written(best, others, audience, env);
    match check(&without, env) {
        Ok(()) => Ok(without),
        // Nobody but the person knows it.
        Err(error) if error.reason == no_audience() && audience.is_none() => {
            if !output::is_interactive() {
                let next = "wandb-cred init --audience NAME";
                return Err(Failure::next(Exit::Configuration, error.message, next).into());
            }
            let answer = ask("The name of your W&B organization (the audience that W&B expects): ")?;
            let text = written(best, others, Some(&answer), env);
            check(&text, env)?;
            Ok(text)
        }
        Err(error) => Err(Failure::new(Exit::Configuration, error.message).into()),
    }
}

fn no_audience() -> Reason {
    Reason::Setting { key: "audience".to_owned() }
}

/// What `check` would refuse is not written.
fn check(text: &str, env: &Env) -> Result<(), Error> {
    let wrong =
        |mistake: &Mistake| Error::misconfigured(format!("the configuration would be wrong{mistake}"));
    let config = Config::parse(text).map_err(|mistake| wrong(&mistake))?;
    if let Some(mistake) = config.broken.values().next() {
        return Err(wrong(mistake));
    }
    let clock = Clock::system();
    let parts = Parts { env: env.clone(), http: Http::new(clock.clone()), clock };
    for (name, profile) in &config.profiles {
        if let Some(provider) = profile.provider() {
            provider.clone().build(profile.context(name, &parts))?;
        }
    }
    Ok(())
}

fn written(best: &Detection, others: &[&Detection], audience: Option<&str>, env: &Env) -> String {
    let mut text = format!("# {}: {}\n", best.kind, best.why);
    let missing = best.settings.iter().filter(|(key, path)| *key == "path" && !Path::new(path).exists());
    for (_, path) in missing {
        text += &format!("# note: {path} is not there (yet)\n");
    }
    for other in others {
        text += &format!("# also found: {} ({})\n", other.kind, other.why);
    }
    text += "[profile.default]\n";
    if let Some(url) = env.var("WANDB_BASE_URL") {
        text += &format!("base-url = {}\n", quote(&url));
    }
    match audience {
        Some(audience) => text += &format!("audience = {}\n", quote(audience)),
        None => text += "# audience = \"the name of your W&B organization\"\n",
    }
    text += &format!("\n[profile.default.provider.{}]\n", best.kind);
    for (key, value) in &best.settings {
        text += &format!("{key} = {}\n", quote(value));
    }
    text
}

/// A string in TOML's notation.
pub(super) fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Writes the file whole or not at all, with mode 0600; only `force` replaces an existing one. A running daemon reads it.
pub(super) fn write(places: &Places, text: &str, force: bool) -> anyhow::Result<()> {
    // A configuration that is a symlink into a folder of dotfiles stays one.
    let config = &places.config.canonicalize().unwrap_or_else(|_| places.config.clone());
    let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        paths::private_dir(folder)?;
    }
    let bytes = text.as_bytes();
    let written =
        if force { atomic_file::replace(config, bytes) } else { atomic_file::create(config, bytes) };
    match written {
        Ok(()) => {
            reload_daemon(places);
            Ok(())
        }
        Err(error) if error.source.kind() == ErrorKind::AlreadyExists => Err(exists(&error.path).into()),
        Err(atomic_file::Error { path, source }) => Err(Error::io(Stage::Files, &path, &source).into()),
    }
}

fn exists(path: &Path) -> Failure {
    let message = format!("{} already exists, and was not changed", path.display());
    Failure::next(Exit::Configuration, message, "wandb-cred check, or wandb-cred init --force to replace it")
}

/// Makes a daemon that runs without a configuration read the new one, and waits until it has.
///
/// A daemon that already has a configuration is left alone: people who replace the file reload when they like.
fn reload_daemon(places: &Places) {
    let client = Client::at(places.socket.clone());
    let unconfigured = || {
        client.get::<api::Status>("/v1/status", STATUS_TIMEOUT).ok().filter(|status| status.config.is_none())
    };
    for attempt in 0..RELOAD_POLLS {
        let Some(status) = unconfigured() else { return };
        let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw);
        if let (0, Some(pid)) = (attempt, pid) {
            let _ = rustix::process::kill_process(pid, Signal::HUP);
        }
        std::thread::sleep(RELOAD_POLL_INTERVAL);
    }
}

const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
const RELOAD_POLLS: u32 = 100;
const RELOAD_POLL_INTERVAL: Duration = Duration::from_millis(10);
