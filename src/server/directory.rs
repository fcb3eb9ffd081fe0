//! The profiles of the moment, each with its edges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::answer::TokenAnswer;
use crate::api::{Problem, ProblemKind};
use crate::profile::Profile;
use crate::sdk_files::Files;
use crate::{foreign_text, spelling};

/// The keys of the configuration outside any profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The profile of requests that name none. Needed only if there are several.
    pub default_profile: Option<String>,
    /// Other users who may ask for access tokens, and for nothing else (see `route`). They must also be able to reach the
    /// socket.
    pub allow_uids: Vec<u32>,
    /// The same by *primary* group: the kernel says no more of a peer through the interfaces that safe Rust has
    /// (`SO_PEERGROUPS` is none of them).
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
        let Some(name) = name.or(self.default.as_deref()) else {
            let detail = match self.members.len() {
                0 => "no profile is configured; run: wandb-cred init".to_owned(),
                _ => format!(
                    "there are several profiles and no default-profile; name one of: {}",
                    self.names()
                ),
            };
            return Err(Problem::new(ProblemKind::NoSuchProfile, detail));
        };
        self.members.get(name).ok_or_else(|| {
            let near = spelling::nearest(name, self.members.keys().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let shown = foreign_text::clean(name, 64);
            let detail = format!("there is no profile `{shown}`{hint} (known: {})", self.names());
            Problem::new(ProblemKind::NoSuchProfile, detail)
        })
    }

    /// The profile itself, by its name.
    pub fn profile(&self, name: &str) -> Option<Arc<Profile>> {
        self.members.get(name).map(|member| Arc::clone(&member.profile))
    }

    /// The profiles' names for a message, as many as somebody may read.
    fn names(&self) -> String {
        let mut names: Vec<_> = self.members.keys().take(MOST_LISTED).map(String::as_str).collect();
        if self.members.len() > MOST_LISTED {
            names.push("...");
        }
        names.join(", ")
    }
}

const MOST_LISTED: usize = 50;

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
