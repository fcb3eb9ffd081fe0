//! Values from the configuration and the environment, with errors that name the key or the variable.

use std::path::{Path, PathBuf};

use url::Url;

use crate::env::Env;
use crate::error::{Error, Reason};
use crate::http::{Destination, check_url};

/// A variable without which the provider cannot work.
pub(crate) fn variable(env: &Env, name: &str) -> Result<String, Error> {
    env.var(name).ok_or_else(|| Error::variable(name, format!("{name} is not set")))
}

/// The URL in a variable, if `reach` allows it.
pub(crate) fn variable_url(name: &str, value: &str, reach: Destination) -> Result<Url, Error> {
    checked(name, value, reach, || Reason::Variable { name: name.to_owned() })
}

/// The URL in a key of the configuration, if `reach` allows it.
pub(crate) fn setting_url(key: &str, value: &str, reach: Destination) -> Result<Url, Error> {
    checked(key, value, reach, || Reason::Setting { key: key.to_owned() })
}

fn checked(name: &str, value: &str, reach: Destination, reason: impl Fn() -> Reason) -> Result<Url, Error> {
    let url = Url::parse(value)
        .map_err(|_| Error::misconfigured(format!("{name} is not a URL")).because(reason()))?;
    check_url(&url, reach).map_err(|error| match error.reason {
        Reason::Other => error.because(reason()).context(name),
        _ => error.context(name),
    })?;
    Ok(url)
}

/// The path as it is used: `~/` is the home directory.
pub(crate) fn expand_home(path: &Path, env: &Env) -> PathBuf {
    match (path.strip_prefix("~"), env.path("HOME")) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// A relative path means nothing to a daemon.
pub(crate) fn require_absolute(kind: &str, key: &str, path: &Path) -> Result<(), Error> {
    if path.is_absolute() {
        return Ok(());
    }
    let message = format!("provider {kind}: {key} must be absolute, not {}", path.display());
    Err(Error::setting(key, message))
}
