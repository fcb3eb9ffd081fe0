//! Which profile a subcommand is about.

use crate::api::PROFILE_SEPARATOR;
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
        // Within a job that uses several, the first of them.
        self.profile.clone().or_else(|| names_in(env).into_iter().next())
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

// No doc comment, as above.
#[derive(clap::Args)]
pub(super) struct ProfilesArg {
    /// The profile to use; may be repeated [default: $WANDB_CRED_PROFILE, else the daemon's]
    #[arg(long = "profile", short = 'p', value_name = "NAME")]
    profiles: Vec<String>,
}

impl ProfilesArg {
    /// The names, if any were given; else the daemon chooses.
    pub(super) fn names(&self, env: &Env) -> Vec<String> {
        if self.profiles.is_empty() { names_in(env) } else { self.profiles.clone() }
    }

    /// Those that were given.
    pub(super) fn given(&self) -> &[String] {
        &self.profiles
    }

    /// The one that was given, or none, for what works with one only.
    pub(super) fn single(&self) -> Option<ProfileArg> {
        match &self.profiles[..] {
            [] => Some(ProfileArg { profile: None }),
            [one] => Some(ProfileArg { profile: Some(one.clone()) }),
            _ => None,
        }
    }
}

impl From<&ProfileArg> for ProfilesArg {
    fn from(one: &ProfileArg) -> Self {
        Self { profiles: one.profile.iter().cloned().collect() }
    }
}

/// The names in the variable, unless a job that has ended left them.
pub(super) fn names_in(env: &Env) -> Vec<String> {
    let name = env.var(VARIABLE).filter(|name| !is_left_over(name, env));
    name.map(|name| name.split(PROFILE_SEPARATOR).map(str::to_owned).collect()).unwrap_or_default()
}

/// Whether `exec` set it for a job that has ended: the configuration may be another one by now.
fn is_left_over(name: &str, env: &Env) -> bool {
    SdkEnvironment::of(env).is_some_and(|left| left.is_stale() && left.profile() == Some(name))
}

const VARIABLE: &str = "WANDB_CRED_PROFILE";
