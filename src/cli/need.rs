//! `--need`: fails at the start instead of in the middle of the night.
//!
//! Some identities end at a known time, whatever anybody does: a CI job's, a batch system's, a sign-in's. The
//! daemon announces that as the profile's outlook.

use std::time::Duration;

use super::command_error::CommandError;
use crate::client::Client;
use crate::clock::Clock;
use crate::duration;
use crate::error::Exit;

// No doc comment: clap would show it as the summary of the subcommand.
#[derive(clap::Args)]
pub(super) struct NeedArg {
    /// Fail at once if the identity cannot last that long, such as 72h, 30m or 1h30m
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_argument)]
    need: Option<Duration>,
}

impl NeedArg {
    /// The same arguments, for another process.
    pub(super) fn arguments(&self) -> impl Iterator<Item = String> {
        self.need.iter().flat_map(|need| ["--need".to_owned(), format!("{}s", need.as_secs())])
    }

    /// To be called once `profile` has a token: before its first one, nobody knows how long its identity lasts.
    pub(super) fn check(&self, client: &Client, profile: &str) -> Result<(), CommandError> {
        let Some(need) = self.need else { return Ok(()) };
        let outlook = client.status()?.profiles.into_iter().find(|known| known.name == profile);
        let Some(outlook) = outlook.and_then(|profile| profile.outlook) else { return Ok(()) };
        let left = outlook.until.duration_since(Clock::system().now().wall);
        let left = Duration::try_from(left).unwrap_or_default();
        if left >= need {
            return Ok(());
        }
        let message = format!(
            "the identity of profile {profile} lasts until {} (in {}), not {}: {}",
            outlook.until,
            duration::text(left.as_secs()),
            duration::text(need.as_secs()),
            outlook.reason
        );
        Err(CommandError::new(Exit::Configuration, message).hint("wandb-cred status"))
    }
}
