//! The README's one command: sandbox, daemon and a client in one terminal, gone without a trace at Ctrl-C.
//!
//! The sandbox runs on a thread of this process; daemon and command are the programs beside this one, started
//! as a user would start them.

use std::fs::File;
use std::io::{IsTerminal, Write, stdout};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tempfile::TempDir;

use super::server::{Config, Sandbox, Settings};
use super::signals::Signals;
use crate::api;
use crate::client::Client;
use crate::clock::Clock;

#[derive(Args)]
pub(super) struct Demo {
    /// Stop after the token was shown
    #[arg(long)]
    once: bool,
    /// Life of the access tokens, short enough to see them renewed
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    token_life: u64,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<()> {
        // First of all, so that nothing that comes can be left behind by an early Ctrl-C.
        let mut signals = Signals::install()?;
        let url = self.start_sandbox()?;
        let mut stage = Stage::set(&url)?;
        let shown = self.show(&url, &mut stage, &mut signals);
        let cleared = stage.clear();
        shown?;
        cleared?;
        println!("The daemon has ended and its folder is gone.");
        Ok(())
    }

    fn start_sandbox(&self) -> anyhow::Result<String> {
        let settings = Settings { token_life: self.token_life, jwt_life: 300, ..Settings::default() };
        let runtime = super::runtime()?;
        let config = Config { settings, ..Config::default() };
        let sandbox = runtime.block_on(Sandbox::bind(config, Clock::system()))?;
        let url = sandbox.url().to_owned();
        std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || runtime.block_on(sandbox.run(std::future::pending())))?;
        Ok(url)
    }

    fn show(&self, url: &str, stage: &mut Stage, signals: &mut Signals) -> anyhow::Result<()> {
        println!("A stand-in identity provider and W&B server answers at {url}.");
        println!("wandb-credd (pid {}) serves on {}.\n", stage.daemon.id(), stage.socket.display());
        if !stage.wait_until_it_answers(signals)? {
            return Ok(());
        }
        println!("$ wandb-cred token\n{}\n", abbreviated(&stage.token()?));
        println!("Paste into another terminal:");
        let socket = quoted(&stage.socket);
        println!("  curl --unix-socket {socket} http://localhost/v1/token");
        println!("  WANDB_CRED_SOCKET={socket} {} status\n", quoted(from_here(&sibling("wandb-cred")?)));
        if self.once {
            return Ok(());
        }
        println!("Live status; a token lives {} s here. Ctrl-C ends everything.", self.token_life);
        let shown = watch(stage, signals);
        if stdout().is_terminal() {
            println!();
        }
        shown
    }
}

/// Redraws one line each second on a terminal; in a pipe, a line for each change. Ends at a signal.
fn watch(stage: &mut Stage, signals: &mut Signals) -> anyhow::Result<()> {
    let terminal = stdout().is_terminal();
    let mut before = String::new();
    loop {
        stage.check_alive()?;
        let status: api::Status = stage.client.get("/v1/status", PATIENCE)?;
        let profile = status.profiles.first().context("the daemon knows no profile")?;
        let change = summary(profile);
        if terminal {
            print!("\r\x1b[K{}", line(profile, &change));
        } else if change != before {
            println!("{}", line(profile, &change));
        }
        stdout().flush()?;
        before = change;
        if signals.came_within(Duration::from_secs(1))? {
            return Ok(());
        }
    }
}

/// What changes only when something happens.
fn summary(profile: &api::Profile) -> String {
    let state = |kept: &api::Kept| format!("{:?}", kept.state).to_lowercase();
    let error = profile.access.last_error.as_ref().or(profile.identity.last_error.as_ref());
    let error = error.map(|error| format!(" · {error}")).unwrap_or_default();
    format!(
        "identity {} · access {} · exchanges {}{error}",
        state(&profile.identity),
        state(&profile.access),
        profile.exchanges
    )
}

/// The same with the times, which change always.
fn line(profile: &api::Profile, summary: &str) -> String {
    let now = Clock::system().now().wall;
    let left = profile.access.expires_in.unwrap_or_default();
    let renewal = profile.access.next_renewal.map(|at| at.duration_since(now).as_secs().max(0));
    let renewal = renewal.map(|seconds| format!(", renewed in {seconds} s")).unwrap_or_default();
    format!("{summary} · token good for {left} s{renewal}")
}

/// Everything that has to be gone at the end: the daemon and its folder.
struct Stage {
    folder: TempDir,
    daemon: Child,
    socket: PathBuf,
    config: PathBuf,
    client: Client,
}

impl Stage {
    fn set(url: &str) -> anyhow::Result<Self> {
        let closed = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("wandb-cred-demo-").permissions(closed).tempdir()?;
        let config = folder.path().join("config.toml");
        let socket = folder.path().join("wandb-cred.sock");
        std::fs::write(&config, configuration(url)?)?;
        let log = File::create(folder.path().join(LOG))?;
        let program = sibling("wandb-credd")?;
        let mut command = Command::new(&program);
        // Even a demo that is killed outright leaves no daemon.
        command.args(["run", "--lifetime-of", &std::process::id().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A group of its own: at Ctrl-C the terminal signals us alone, and we end the daemon in order.
        command.process_group(0);
        let daemon = at(&mut command, &config, &socket).spawn();
        let daemon = daemon
            .with_context(|| format!("{} cannot be started; run: cargo build --bins", program.display()))?;
        Ok(Self { client: Client::at(socket.clone()), folder, daemon, socket, config })
    }

    /// `false` if a signal came first.
    fn wait_until_it_answers(&mut self, signals: &mut Signals) -> anyhow::Result<bool> {
        let clock = Clock::system();
        let deadline = clock.now().boot + PATIENCE;
        while let Err(error) = self.client.get::<api::Status>("/v1/status", PATIENCE) {
            self.check_alive()?;
            if clock.now().boot > deadline {
                return Err(error).with_context(|| self.with_log("wandb-credd does not answer"));
            }
            if signals.came_within(Duration::from_millis(20))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What `wandb-cred token` prints.
    fn token(&mut self) -> anyhow::Result<String> {
        let program = sibling("wandb-cred")?;
        let mut command = Command::new(&program);
        command.arg("token").stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = at(&mut command, &self.config, &self.socket)
            .output()
            .with_context(|| format!("{} cannot be started; run: cargo build --bins", program.display()))?;
        if !output.status.success() {
            bail!(self.with_log(&format!("wandb-cred token failed ({})", output.status)));
        }
        Ok(String::from_utf8(output.stdout).context("wandb-cred token printed no text")?.trim().to_owned())
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.daemon.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(self.with_log(&format!("wandb-credd ended by itself ({status})"))),
        }
    }

    /// `what`, and the end of the daemon's log.
    fn with_log(&self, what: &str) -> String {
        let log = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        if last.is_empty() { what.to_owned() } else { format!("{what}; the end of its log:\n{last}") }
    }

    /// Ends and reaps the daemon, and removes the folder.
    fn clear(mut self) -> anyhow::Result<()> {
        let ended = self.end_daemon();
        let path = self.folder.path().to_owned();
        self.folder.close().with_context(|| format!("{} cannot be removed", path.display()))?;
        ended.map(drop)
    }

    fn end_daemon(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.daemon.try_wait()? {
            return Ok(status);
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let clock = Clock::system();
        let deadline = clock.now().boot + PATIENCE;
        while clock.now().boot < deadline {
            if let Some(status) = self.daemon.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.daemon.kill()?;
        self.daemon.wait()?;
        bail!("wandb-credd did not end within {} s and was killed", PATIENCE.as_secs())
    }
}

/// The environment in which daemon and command meet here, whatever the user has set.
fn at<'a>(command: &'a mut Command, config: &Path, socket: &Path) -> &'a mut Command {
    command.env("WANDB_CRED_CONFIG", config).env("WANDB_CRED_SOCKET", socket).env_remove("WANDB_CRED_PROFILE")
}

fn configuration(url: &str) -> anyhow::Result<String> {
    let this = std::env::current_exe().context("this program's own path is not known")?;
    let this = this.to_str().context("this program's own path is not Unicode")?;
    let argv: toml::Value = vec![this, "mint", "--url", url].into();
    Ok(format!(
        "[profile.sandbox]\nbase-url = \"{url}\"\naudience = \"sandbox\"\nkeep-warm = true\n\n\
         [profile.sandbox.provider.command]\nargv = {argv}\n"
    ))
}

/// Another program of this build.
fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("this program's own path is not known")?;
    Ok(this.with_file_name(name))
}

/// As short as it can be typed in this folder; a bare name would be looked up in `PATH`.
fn from_here(path: &Path) -> &Path {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).ok().filter(|short| short.components().count() > 1).unwrap_or(path)
}

/// Enough of a token to tell one from the next.
fn abbreviated(token: &str) -> String {
    let start: String = token.chars().take(14).collect();
    format!("{start}…  ({} characters)", token.chars().count())
}

/// `path` as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// For the daemon to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

const LOG: &str = "daemon.log";
const LOG_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_the_daemon_takes() {
        let text = configuration("http://127.0.0.1:1").expect("text");
        let config = crate::config::Config::parse(&text).expect("valid");
        assert!(config.broken.is_empty(), "{:?}", config.broken);
        assert!(config.profiles["sandbox"].keep_warm);
    }

    #[test]
    fn a_path_with_a_space_is_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-b/s.sock")), "/tmp/a-b/s.sock");
        assert_eq!(quoted(Path::new("/tmp/it's/s")), r"'/tmp/it'\''s/s'");
    }
}
