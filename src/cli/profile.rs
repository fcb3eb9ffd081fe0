//! Which profile a subcommand is about.

use crate::client::encode;
use crate::env::Env;
use crate::paths::SdkEnvironment;

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
        self.profile.clone().or_else(|| env.var(VARIABLE).filter(|name| !is_left_over(name, env)))
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

/// Whether `exec` set it for a job that has ended: the configuration may be another one by now.
fn is_left_over(name: &str, env: &Env) -> bool {
    SdkEnvironment::of(env).is_some_and(|left| left.is_stale() && left.profile() == Some(name))
}

const VARIABLE: &str = "WANDB_CRED_PROFILE";
