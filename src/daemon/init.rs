//! `wandb-credd init`: writes down the configuration that the environment suggests.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::{CONFIG, OUTPUT, Source};
use crate::api;
use crate::cli;
use crate::client::Client;
use crate::clock::Clock;
use crate::env::Env;
use crate::http::Http;
use crate::paths::{self, Places};
use crate::provider;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    how: cli::init::Args,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let places = super::places(&args.source)?;
    let config = &places.config;
    if !args.how.force && !args.how.dry_run && config.symlink_metadata().is_ok() {
        return Err(Error::Exists { path: config.clone() }.into());
    }
    let found = detect(&Env::system())?;
    if args.how.dry_run {
        return print(&found);
    }
    write(&places, &found, args.how.force)?;
    let mut text = format!("wrote {}:\n\n", config.display());
    for line in found.lines() {
        text += if line.is_empty() { "\n" } else { "    " };
        if !line.is_empty() {
            text += line;
            text += "\n";
        }
    }
    text += "\nnext: wandb-cred check, then wandb-cred exec -- CMD or wandb-cred service install\n";
    print(&text)
}

fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever closed the pipe has read enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error).into()),
        _ => Ok(()),
    }
}

/// A configuration for the best identity source that is here; the rest of what is here in comments.
fn detect(env: &Env) -> anyhow::Result<String> {
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
    let (found, passed): (Vec<_>, Vec<_>) = detections.iter().partition(|detection| detection.found);
    let Some(best) = found.first() else {
        let passed: Vec<_> = passed.iter().map(|other| format!("  {}: {}", other.kind, other.why)).collect();
        return Err(Error::NothingFound { looked: passed.join("\n") }.into());
    };
    let mut text = format!("# {}: {}\n", best.kind, best.why);
    for other in &found[1..] {
        writeln!(text, "# also here: {} ({})", other.kind, other.why)?;
    }
    text += "[profile.default]\n";
    if let Some(url) = env.var("WANDB_BASE_URL") {
        writeln!(text, "base-url = {}", quote(&url))?;
    }
    match env.var("WANDB_CRED_AUDIENCE") {
        Some(audience) => writeln!(text, "audience = {}", quote(&audience))?,
        None => text += "# audience = \"the name of your W&B organization\"\n",
    }
    write!(text, "\n[profile.default.provider.{}]\n", best.kind)?;
    for (key, value) in &best.settings {
        writeln!(text, "{key} = {}", quote(value))?;
    }
    Ok(text)
}

/// A string as TOML has it.
pub(super) fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// All or nothing, mode 0600; an existing file only falls to `force`. A daemon that runs takes it up.
pub(super) fn write(places: &Places, text: &str, force: bool) -> anyhow::Result<()> {
    // A configuration that is a link into a folder of dotfiles stays one.
    let config = &places.config.canonicalize().unwrap_or_else(|_| places.config.clone());
    let at = |source| paths::Error::Io { path: config.clone(), source };
    let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        paths::private_dir(folder)?;
    }
    // Temporary files of this crate have mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(at)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(at)?;
    let result = if force { file.persist(config) } else { file.persist_noclobber(config) };
    match result {
        Ok(_) => {
            tell_daemon(places);
            Ok(())
        }
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::Exists { path: config.clone() }.into())
        }
        Err(error) => Err(at(error.error).into()),
    }
}

/// Lets a daemon that runs without a configuration read the new one, and waits until it has.
///
/// One that has a configuration already is left alone: whoever replaces it reloads when they like.
fn tell_daemon(places: &Places) {
    let client = Client::at(places.socket.clone());
    let asked =
        || client.get::<api::Status>("/v1/status", PATIENCE).ok().filter(|status| status.config.is_none());
    for attempt in 0..ATTEMPTS {
        let Some(status) = asked() else { return };
        let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw);
        if let (0, Some(pid)) = (attempt, pid) {
            let _ = rustix::process::kill_process(pid, Signal::HUP);
        }
        std::thread::sleep(PAUSE);
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Why no configuration was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "{} exists, and is left as it is\n  next: wandb-cred check, or wandb-cred init --force to replace it",
        path.display()
    )]
    Exists { path: PathBuf },
    #[error("found no identity source here; looked for:\n{looked}")]
    NothingFound { looked: String },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl Error {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Exists { .. } | Self::NothingFound { .. } => CONFIG,
            Self::Output(_) => OUTPUT,
        }
    }
}
