//! The README's one command: sandbox, daemon and a client in one terminal. After Ctrl-C nothing is left of them.
//!
//! The sandbox runs on a thread of this process. The daemon and the command are the programs beside this one,
//! started as a user would start them.

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
use tokio::runtime::Runtime;

use super::server::{Config, Sandbox, Settings};
use crate::api;
use crate::client::Client;
use crate::clock::Clock;
use crate::signals::{self, Signals};

#[derive(Args)]
pub(super) struct Demo {
    /// Stop after showing the token
    #[arg(long)]
    once: bool,
    /// Lifetime of the access tokens; short, so that you see them renewed
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    token_life: u64,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<()> {
        // First, so that an early Ctrl-C leaves nothing behind.
        let mut interrupt = Interrupt::install()?;
        let url = self.start_sandbox()?;
        let mut daemon = Daemon::start(&url)?;
        let shown = self.show(&url, &mut daemon, &mut interrupt);
        let removed = daemon.remove();
        shown?;
        removed?;
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

    fn show(&self, url: &str, daemon: &mut Daemon, interrupt: &mut Interrupt) -> anyhow::Result<()> {
        println!("A stand-in identity provider and W&B server answers at {url}.");
        println!("wandb-credd (pid {}) serves on {}.\n", daemon.process.id(), daemon.socket.display());
        if !daemon.wait_until_ready(interrupt)? {
            return Ok(());
        }
        println!("$ wandb-cred token\n{}\n", abbreviated(&daemon.token()?));
        println!("Paste into another terminal:");
        let socket = quoted(&daemon.socket);
        println!("  curl --unix-socket {socket} http://localhost/v1/token");
        println!("  WANDB_CRED_SOCKET={socket} {} status\n", quoted(relative(&sibling("wandb-cred")?)));
        if self.once {
            return Ok(());
        }
        println!("Live status; tokens last {} s here. Ctrl-C stops everything.", self.token_life);
        let watched = watch(daemon, interrupt);
        if stdout().is_terminal() {
            println!();
        }
        watched
    }
}

/// On a terminal redraws one line each second; elsewhere prints a line for each change. Ends at a signal.
fn watch(daemon: &mut Daemon, interrupt: &mut Interrupt) -> anyhow::Result<()> {
    let terminal = stdout().is_terminal();
    let mut before = String::new();
    loop {
        daemon.check_alive()?;
        let status: api::Status = daemon.client.get("/v1/status", TIMEOUT)?;
        let profile = status.profiles.first().context("the daemon has no profile")?;
        let change = summary(profile);
        if terminal {
            print!("\r\x1b[K{}", line(profile, &change));
        } else if change != before {
            println!("{}", line(profile, &change));
        }
        stdout().flush()?;
        before = change;
        if interrupt.within(Duration::from_secs(1)) {
            return Ok(());
        }
    }
}

/// The part that changes only when something happens.
fn summary(profile: &api::Profile) -> String {
    let state = |kept: &api::Kept| format!("{:?}", kept.state).to_lowercase();
    let identity = profile.identity.as_ref();
    let error = profile.access.last_error.as_ref().or(identity.and_then(|kept| kept.last_error.as_ref()));
    let error = error.map(|error| format!(" · {error}")).unwrap_or_default();
    format!(
        "identity {} · access {} · exchanges {}{error}",
        identity.map(state).unwrap_or_default(),
        state(&profile.access),
        profile.exchanges
    )
}

/// The summary and the times, which change every second.
fn line(profile: &api::Profile, summary: &str) -> String {
    let now = Clock::system().now().wall;
    let left = profile.access.expires_in.unwrap_or_default();
    let renewal = profile.access.next_renewal.map(|at| at.duration_since(now).as_secs().max(0));
    let renewal = renewal.map(|seconds| format!(", renewed in {seconds} s")).unwrap_or_default();
    format!("{summary} · token good for {left} s{renewal}")
}

/// The demo's daemon and its folder. Both must be gone at the end.
struct Daemon {
    folder: TempDir,
    process: Child,
    socket: PathBuf,
    config: PathBuf,
    client: Client,
}

impl Daemon {
    fn start(url: &str) -> anyhow::Result<Self> {
        let private = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("wandb-cred-demo-").permissions(private).tempdir()?;
        let config = folder.path().join("config.toml");
        let socket = folder.path().join("wandb-cred.sock");
        std::fs::write(&config, configuration(url)?)?;
        let log = File::create(folder.path().join(LOG))?;
        let program = sibling("wandb-credd")?;
        let mut command = Command::new(&program);
        // So that the daemon ends even if the demo is killed.
        command.args(["run", "--lifetime-of", &std::process::id().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // In its own process group, so that Ctrl-C reaches only the demo, which then stops the daemon.
        command.process_group(0);
        let process = with_env(&mut command, &config, &socket)
            .spawn()
            .with_context(|| format!("cannot start {}; run: cargo build --bins", program.display()))?;
        Ok(Self { client: Client::at(socket.clone()), folder, process, socket, config })
    }

    /// Returns `false` if a signal arrives first.
    fn wait_until_ready(&mut self, interrupt: &mut Interrupt) -> anyhow::Result<bool> {
        let clock = Clock::system();
        let deadline = clock.now().boot + TIMEOUT;
        while let Err(error) = self.client.get::<api::Status>("/v1/status", TIMEOUT) {
            self.check_alive()?;
            if clock.now().boot > deadline {
                return Err(error).with_context(|| self.with_log("wandb-credd does not answer"));
            }
            if interrupt.within(Duration::from_millis(20)) {
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
        let output = with_env(&mut command, &self.config, &self.socket)
            .output()
            .with_context(|| format!("cannot start {}; run: cargo build --bins", program.display()))?;
        if !output.status.success() {
            bail!(self.with_log(&format!("wandb-cred token failed ({})", output.status)));
        }
        Ok(String::from_utf8(output.stdout)
            .context("wandb-cred token did not print UTF-8")?
            .trim()
            .to_owned())
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(self.with_log(&format!("the daemon stopped unexpectedly ({status})"))),
        }
    }

    /// `what`, followed by the last lines of the daemon's log.
    fn with_log(&self, what: &str) -> String {
        let log = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        if last.is_empty() { what.to_owned() } else { format!("{what}; the last lines of its log:\n{last}") }
    }

    /// Stops the daemon and removes its folder.
    fn remove(mut self) -> anyhow::Result<()> {
        let stopped = self.stop();
        let path = self.folder.path().to_owned();
        self.folder.close().with_context(|| format!("cannot remove {}", path.display()))?;
        stopped.map(drop)
    }

    fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.process.try_wait()? {
            return Ok(status);
        }
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let clock = Clock::system();
        let deadline = clock.now().boot + TIMEOUT;
        while clock.now().boot < deadline {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process.kill()?;
        self.process.wait()?;
        bail!("wandb-credd did not stop within {} s and was killed", TIMEOUT.as_secs())
    }
}

/// Signals, for code that blocks.
struct Interrupt {
    runtime: Runtime,
    signals: Signals,
}

impl Interrupt {
    fn install() -> anyhow::Result<Self> {
        let handlers = signals::install()?;
        let runtime = super::runtime()?;
        let signals = runtime.block_on(async { handlers.listen() })?;
        Ok(Self { runtime, signals })
    }

    /// Waits for a signal, at most for `timeout`. Returns whether one arrived.
    fn within(&mut self, timeout: Duration) -> bool {
        let next = async { tokio::time::timeout(timeout, self.signals.next()).await };
        self.runtime.block_on(next).is_ok()
    }
}

/// Sets what the daemon and the command need to find each other, whatever the user has set.
fn with_env<'a>(command: &'a mut Command, config: &Path, socket: &Path) -> &'a mut Command {
    command.env("WANDB_CRED_CONFIG", config).env("WANDB_CRED_SOCKET", socket).env_remove("WANDB_CRED_PROFILE")
}

fn configuration(url: &str) -> anyhow::Result<String> {
    let this = std::env::current_exe().context("cannot find the path of this program")?;
    let this = this.to_str().context("the path of this program is not UTF-8")?;
    let argv: toml::Value = vec![this, "mint", "--url", url].into();
    Ok(format!(
        "[profile.sandbox]\nbase-url = \"{url}\"\naudience = \"sandbox\"\nkeep-warm = true\n\n\
         [profile.sandbox.provider.command]\nargv = {argv}\n"
    ))
}

/// Another program of this build, in the same folder as this one.
fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find the path of this program")?;
    Ok(this.with_file_name(name))
}

/// Relative to the current folder, to be short. Not a bare name, which a shell would look up in `PATH`.
fn relative(path: &Path) -> &Path {
    let current = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(current).ok().filter(|short| short.components().count() > 1).unwrap_or(path)
}

/// Enough of a token to tell it from the next.
fn abbreviated(token: &str) -> String {
    let start: String = token.chars().take(14).collect();
    format!("{start}…  ({} characters)", token.chars().count())
}

/// `path`, quoted for a shell if it needs that.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// For the daemon to start, to answer and to stop.
const TIMEOUT: Duration = Duration::from_secs(10);

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
