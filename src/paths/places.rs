//! The folders of configuration and state.

use std::path::{Path, PathBuf};

use super::{PROFILES, no_home, socket};
use crate::env::Env;
use crate::error::Result;

/// The places of one user's daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The configuration file; it need not exist.
    pub config: PathBuf,
    /// The folder of the socket and the SDK files, mode 0700.
    pub runtime: PathBuf,
    pub socket: PathBuf,
}

impl Places {
    /// Reads the environment and nothing else: a statically linked command cannot ask the user database.
    pub fn find(env: &Env) -> Result<Self> {
        let socket = socket(env)?;
        let runtime = socket.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { config: config(env)?, runtime, socket })
    }

    /// The folder of one profile's SDK files.
    pub fn profile(&self, name: &str) -> PathBuf {
        self.runtime.join(PROFILES).join(name)
    }
}

fn config(env: &Env) -> Result<PathBuf> {
    if let Some(path) = env.path("WANDB_CRED_CONFIG") {
        return Ok(path);
    }
    config_dir(env).map(|dir| dir.join("config.toml"))
}

/// The folder for configuration: `directories`' choice, `~/.config/wandb-cred` on Linux and
/// `~/Library/Application Support/wandb-cred` on macOS.
fn config_dir(env: &Env) -> Result<PathBuf> {
    // Without HOME the crate would ask the user database (NSS), which a static program cannot do.
    if env.path("HOME").is_none() {
        return Err(no_home());
    }
    let dirs = directories::ProjectDirs::from("", "", "wandb-cred").ok_or_else(no_home)?;
    Ok(dirs.config_dir().to_path_buf())
}

/// The folder for what must survive a reboot: `$XDG_STATE_HOME/wandb-cred`, `~/.local/state/wandb-cred`, or
/// `~/Library/Application Support/wandb-cred` on macOS.
pub fn state_dir(env: &Env) -> Result<PathBuf> {
    if let Some(dir) = env.path("XDG_STATE_HOME").filter(|dir| dir.is_absolute()) {
        return Ok(dir.join("wandb-cred"));
    }
    home_state_dir(env)
}

/// The same, whatever `XDG_STATE_HOME` says: for what all processes of a user must agree on.
pub fn home_state_dir(env: &Env) -> Result<PathBuf> {
    let home = env.path("HOME").ok_or_else(no_home)?;
    let below = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/state" };
    Ok(home.join(below).join("wandb-cred"))
}
