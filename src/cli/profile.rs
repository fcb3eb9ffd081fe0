//! Which profile a subcommand is about.

use crate::client::encode;
use crate::env::Env;

// No doc comment: clap would show it as the summary of the subcommand.
#[derive(clap::Args)]
pub(super) struct ProfileArg {
    /// The profile to use [default: $WANDB_CRED_PROFILE, else the daemon's default profile]
    #[arg(long, short, value_name = "NAME")]
    profile: Option<String>,
}

impl ProfileArg {
    /// The name, if one was given; else the daemon chooses.
    pub(super) fn name(&self, env: &Env) -> Option<String> {
        self.profile.clone().or_else(|| env.var("WANDB_CRED_PROFILE"))
    }

    /// The same arguments, for another process.
    pub(super) fn arguments(&self) -> impl Iterator<Item = String> {
        self.profile.iter().flat_map(|name| ["--profile".to_owned(), name.clone()])
    }

    /// `path` with the name in its query.
    pub(super) fn target(&self, path: &str, env: &Env) -> String {
        match self.name(env) {
            Some(name) => format!("{path}?profile={}", encode(&name)),
            None => path.to_owned(),
        }
    }
}
