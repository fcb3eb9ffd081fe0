//! `wandb-credd check`: is the configuration right? Everything that is wrong in one run, each with its line.

use super::Source;
use super::failure::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::env::Env;
use crate::error::{Error, Exit, Reason};
use crate::http::Http;
use crate::output;
use crate::profile::Parts;

pub(super) fn run(source: &Source) -> anyhow::Result<()> {
    let (env, places) = (Env::system(), super::places(source)?);
    let (config, excerpt) = Config::examine(&places.config, &env)?;
    let clock = Clock::system();
    let parts = Parts { env, http: Http::new(clock.clone()), clock };
    let mut unusable = Vec::new();
    for (name, profile) in &config.profiles {
        let shown = |place: &[&str], key: Option<&str>, error: &Error| match &excerpt {
            Some(excerpt) => excerpt.show(&excerpt.within(name, place, key, error.message.clone())),
            None => format!("{}: profile `{name}`: {error}", places.config.display()),
        };
        for (key, error) in profile.network.examine() {
            unusable.push(shown(&[], Some(key), &error));
        }
        let Some(provider) = profile.provider() else { continue };
        let Err(error) = provider.clone().build(profile.context(name, &parts)) else { continue };
        let key = match &error.reason {
            Reason::Setting { key } => Some(key.as_str()),
            _ => None,
        };
        unusable.push(shown(&["provider", profile.kind()], key, &error));
    }
    if !unusable.is_empty() {
        let next = format_args!("edit {}, then: wandb-cred check", places.config.display());
        return Err(Failure::next(Exit::Configuration, unusable.join("\n"), next).into());
    }
    let names = config.names().collect::<Vec<_>>().join(", ");
    output::print_line(format!("ok: {} profile(s): {names}", config.profiles.len()))?;
    Ok(())
}
