//! Which profile a subcommand is about.

use crate::client::encode;
use crate::env::Env;

#[derive(clap::Args)]
pub(super) struct Choice {
    /// The profile to use [default: $WANDB_CRED_PROFILE, else the daemon's default profile]
    #[arg(long, short, value_name = "NAME")]
    pub(super) profile: Option<String>,
}

impl Choice {
    /// The name, if one was given; else the daemon chooses.
    pub(super) fn name(&self, env: &Env) -> Option<String> {
        self.profile.clone().or_else(|| env.var("WANDB_CRED_PROFILE"))
    }

    /// `path` with the choice in its query.
    pub(super) fn target(&self, path: &str, env: &Env) -> String {
        match self.name(env) {
            Some(name) => format!("{path}?profile={}", encode(&name)),
            None => path.to_owned(),
        }
    }
}
