//! The profiles of the moment, each with its edges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::answer::TokenAnswer;
use crate::api::{Problem, ProblemKind};
use crate::profile::Profile;
use crate::sdk_files::Files;

/// The keys of the configuration outside any profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The profile of requests that name none. Needed only if there are several.
    pub default_profile: Option<String>,
    /// Other users who may ask for tokens. They must also be able to reach the socket.
    pub allow_uids: Vec<u32>,
    pub allow_gids: Vec<u32>,
}

/// The profiles by name, and what concerns them all.
#[derive(Default)]
pub struct Directory {
    pub config: Config,
    /// The configuration file, if there is one.
    pub config_path: Option<PathBuf>,
    pub default: Option<String>,
    pub members: BTreeMap<String, Arc<Member>>,
}

impl Directory {
    /// The profile of that name, or the default one.
    pub fn find(&self, name: Option<&str>) -> Result<&Arc<Member>, Problem> {
        let known = || self.members.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let Some(name) = name.or(self.default.as_deref()) else {
            let detail = match self.members.len() {
                0 => "no profile is configured; run: wandb-cred init".to_owned(),
                _ => format!("there are several profiles and no default-profile; name one of: {}", known()),
            };
            return Err(Problem::new(ProblemKind::NoSuchProfile, detail));
        };
        self.members.get(name).ok_or_else(|| {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            let near = self.members.keys().find(|known| strsim::damerau_levenshtein(known, name) <= 2);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let detail = format!("there is no profile `{shown}`{hint} (known: {})", known());
            Problem::new(ProblemKind::NoSuchProfile, detail)
        })
    }
}

/// One profile with its edges.
pub struct Member {
    pub profile: Arc<Profile>,
    pub files: Option<Arc<Files>>,
    pub(super) token_answer: TokenAnswer,
}

impl Member {
    pub fn new(profile: Arc<Profile>, files: Option<Arc<Files>>) -> Self {
        Self { profile, files, token_answer: TokenAnswer::default() }
    }
}
