//! How `auto` recognises a source. Each source brings its own [`Detect`], and the table of kinds collects them.

use std::pin::Pin;

use super::source::{Context, Provider};
use crate::env::Env;
use crate::error::Error;

/// Implemented by the `Config` of each kind that `auto` looks for. The first two may read files: they run on a thread that
/// is not waited for without end.
pub trait Detect: Sized {
    /// The environment names it, or a token is mounted for W&B. The error says what is missing.
    fn in_environment(env: &Env) -> Result<String, String>;

    /// The firmware or the files of the machine show it.
    fn on_machine(_env: &Env) -> Option<String> {
        None
    }

    /// Asks a metadata address, if the source has one.
    fn probe(_cx: Context) -> Option<Probe> {
        None
    }

    /// The configuration that uses it.
    fn detected(env: &Env) -> Self;

    /// The keys that `detected` sets, for a configuration file.
    fn settings(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// What a metadata address answers; the error says why it is not the one looked for.
pub type Probe = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// [`Detect`] of one kind, as data.
pub struct Detector {
    pub(super) kind: &'static str,
    pub(super) in_environment: fn(&Env) -> Result<String, String>,
    pub(super) on_machine: fn(&Env) -> Option<String>,
    pub(super) probe: fn(Context) -> Option<Probe>,
    pub(super) settings: fn(&Env) -> Vec<(&'static str, String)>,
    pub(super) build: fn(Context) -> Result<Box<dyn Provider>, Error>,
}

/// Whether one of the variables is set.
pub(super) fn any_set(env: &Env, names: &[&str]) -> Result<String, String> {
    match names.iter().find(|name| env.var(name).is_some()) {
        Some(name) => Ok(format!("{name} is set")),
        None => Err(format!("none of {} is set", names.join(", "))),
    }
}

/// Whether both variables are set: `system` names a CI system, `token` what a job gets from it.
pub(super) fn both_set(env: &Env, system: &str, token: &str) -> Result<(), String> {
    match (env.var(system), env.var(token)) {
        (Some(_), Some(_)) => Ok(()),
        (Some(_), None) => Err(format!("{system} is set, but {token} is not")),
        (None, _) => Err(format!("{system} is not set")),
    }
}

/// The content of a file of the firmware, trimmed.
pub(super) fn firmware(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}
