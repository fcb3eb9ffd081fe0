//! `--need`: refuses at the start what would fail in the middle of the night.
//!
//! Some identities end at a known time, whatever anybody does: a CI job's, a batch system's, a sign-in's. The
//! daemon announces that as the profile's outlook.

use std::time::Duration;

use super::failure::{Exit, Failure};
use super::span;
use crate::api;
use crate::client::Client;
use crate::clock::Clock;
use crate::env::Env;

#[derive(clap::Args)]
pub(super) struct Need {
    /// Fail at once if the identity cannot last that long, such as 72h, 30m or 1h30m
    #[arg(long, value_name = "DURATION", value_parser = span::parse)]
    need: Option<Duration>,
}

impl Need {
    /// To be asked once `profile` has a token: before its first one, nobody knows how long its identity lasts.
    pub(super) fn check(&self, client: &Client, profile: &str, env: &Env) -> Result<(), Failure> {
        let Some(need) = self.need else { return Ok(()) };
        let status: api::Status =
            client.get("/v1/status", super::status::PATIENCE).map_err(|error| Failure::of(error, env))?;
        let outlook =
            status.profiles.into_iter().find(|known| known.name == profile).and_then(|known| known.outlook);
        let Some(outlook) = outlook else { return Ok(()) };
        let left = outlook.until.duration_since(Clock::system().now().wall);
        let left = Duration::try_from(left).unwrap_or_default();
        if left >= need {
            return Ok(());
        }
        let what = format!(
            "the identity of profile {profile} lasts until {} (in {}), not {}: {}",
            outlook.until,
            span::text(left.as_secs()),
            span::text(need.as_secs()),
            outlook.reason
        );
        Err(Failure::new(Exit::Configuration, what).next("wandb-cred status"))
    }
}
