//! The profiles of the moment, each with its edges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::answer::TokenAnswer;
use super::audit::Destination;
use super::export::{Loopback, Textfile};
use crate::api::{self, Problem, ProblemKind};
use crate::keeper::Demand;
use crate::profile::Profile;
use crate::sdk_files::Files;
use crate::{foreign_text, spelling};

/// The keys of the configuration outside any profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The profile of requests that name none. Needed only if there are several.
    pub default_profile: Option<String>,
    /// Other users who may ask for access tokens, and for nothing else (see `route`), on the guest socket.
    pub allow_uids: Vec<u32>,
    /// The same by *primary* group: the kernel says no more of a peer through the interfaces that safe Rust has
    /// (`SO_PEERGROUPS` is none of them).
    pub allow_gids: Vec<u32>,
    /// A second socket, for them: nobody else gets into the folder of the first one, which also has the SDK files. Read
    /// when the daemon starts.
    pub guest_socket: Option<PathBuf>,
    /// Where to record who got a token.
    pub audit_log: Option<Destination>,
    /// Where Prometheus may ask for the metrics, which cannot ask a Unix socket.
    pub metrics_listen: Option<Loopback>,
    /// A file of metrics for node_exporter.
    pub metrics_textfile: Option<Textfile>,
}

/// The profiles by name, and what concerns them all.
#[derive(Default)]
pub struct Directory {
    pub config: Config,
    /// The configuration file, if there is one.
    pub config_path: Option<PathBuf>,
    pub default: Option<String>,
    pub members: BTreeMap<String, Arc<Member>>,
    /// Why there is no profile yet, where they come by themselves.
    pub awaited: Option<String>,
}

impl Directory {
    /// The profiles that have SDK files, and the files.
    pub(super) fn with_files(&self) -> impl Iterator<Item = (Arc<Profile>, Arc<Files>)> {
        let members = self.members.values();
        members.filter_map(|member| Some((Arc::clone(&member.profile), member.files.clone()?)))
    }

    /// The profile of that name, or the default one.
    pub fn find(&self, name: Option<&str>) -> Result<&Arc<Member>, Problem> {
        if let Some(why) = self.awaited.as_ref().filter(|_| self.members.is_empty()) {
            let problem = Problem::new(ProblemKind::UpstreamUnavailable, why.as_str());
            return Err(Problem { retry_after: Some(1), ..problem });
        }
        let Some(name) = name.or(self.default.as_deref()) else {
            let detail = match self.members.len() {
                0 => "no profile is configured; run: wandb-cred init".to_owned(),
                _ => format!(
                    "there are several profiles and no default-profile; name one of: {}",
                    self.names()
                ),
            };
            let next = self.members.keys().next().map(|name| of_profile(name));
            return Err(Problem { next, ..Problem::new(ProblemKind::NoSuchProfile, detail) });
        };
        self.members.get(name).ok_or_else(|| {
            let near = spelling::nearest(name, self.members.keys().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let shown = foreign_text::clean(name, 64);
            let detail = format!("there is no profile `{shown}`{hint} (known: {})", self.names());
            let next = near.or(self.default.as_deref()).map(of_profile);
            Problem { profile: Some(shown), next, ..Problem::new(ProblemKind::NoSuchProfile, detail) }
        })
    }

    /// The members of a name that stands for several profiles (`a+b`), or for one. `None` if one of them is not there.
    pub(super) fn several(&self, name: &str) -> Option<Vec<&Arc<Member>>> {
        name.split(SEPARATOR).map(|name| self.members.get(name)).collect()
    }

    /// What keeps these profiles hot.
    pub(super) fn demands(&self, name: &str) -> Option<Vec<Arc<Demand>>> {
        Some(self.several(name)?.into_iter().map(|member| Arc::clone(&member.profile.demand)).collect())
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

/// What makes this the profile of a command, or of all in this shell.
fn of_profile(name: &str) -> String {
    format!("add --profile {name}, or: export WANDB_CRED_PROFILE={name}")
}

const MOST_LISTED: usize = 50;

/// Between the names of profiles that are used together; no name of a profile has it.
pub(super) const SEPARATOR: char = api::PROFILE_SEPARATOR;

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
