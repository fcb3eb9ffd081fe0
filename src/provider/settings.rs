//! Values from the configuration and the environment, with errors that name the key or the variable.

use std::path::{Path, PathBuf};

use url::Url;

use crate::env::Env;
use crate::error::{Error, Reason};
use crate::foreign_text::is_address;
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
    let not_a_url = || {
        // `idp.example:8443` would be a URL of the scheme `idp.example`.
        let bare = !value.contains("://") && Url::parse(&format!("https://{value}")).is_ok();
        let write = match bare && is_address(value) {
            true => format!("write \"https://{value}\""),
            false => "write it like \"https://idp.example.com\"".to_owned(),
        };
        Error::misconfigured(format!("{name} is not a URL: {write}")).because(reason())
    };
    let url = Url::parse(value).ok().filter(|_| value.contains("://")).ok_or_else(not_a_url)?;
    check_url(&url, reach).map_err(|error| error.because(reason()).context(name))?;
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
