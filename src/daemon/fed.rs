//! `run --feed`: profiles that come, with their tokens, as the lines of `wandb-cred feed`. No configuration is read.
//!
//! Each profile's first token is told on standard output once its SDK files are written: whoever started this on many nodes
//! waits for that line of each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::profile_set::ProfileSet;
use crate::api;
use crate::backoff::Thinned;
use crate::clock::Clock;
use crate::config::is_name;
use crate::feed::{self, Line, lines};
use crate::output;
use crate::paths::{self, Places};
use crate::profile::{self, BaseUrl};
use crate::server::State;
use crate::token::Expires as _;

/// The feed, and the profiles that it has brought.
pub(super) struct Fed {
    lines: Option<mpsc::Receiver<Line>>,
    stores: BTreeMap<String, feed::Store>,
    clock: Clock,
    skipped: Thinned,
}

impl Fed {
    /// Begins to read `path`, or standard input for `-`.
    pub(super) fn start(path: &Path, clock: &Clock) -> anyhow::Result<Self> {
        let stream: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(Opened::Not(path.to_owned()))
        };
        let lines = lines::read(stream, clock.clone()).context("cannot read the feed")?;
        Ok(Self {
            lines: Some(lines),
            stores: BTreeMap::new(),
            clock: clock.clone(),
            skipped: Thinned::new(),
        })
    }

    /// Takes the next line. False if the daemon is to stop.
    async fn take(&mut self, profiles: &mut ProfileSet, state: &State) -> bool {
        let Some(lines) = &mut self.lines else { return std::future::pending().await };
        match lines.recv().await {
            Some(Line::Goodbye) => return false,
            Some(Line::Token(relayed)) => {
                if let Err(why) = self.token(*relayed, profiles, state)
                    && let Some(count) = self.skipped.count()
                {
                    warn!(why, count, "skipped a line of the feed");
                }
            }
            None => {
                self.lines = None;
                let now = self.clock.now();
                for store in self.stores.values() {
                    store.end(now.wall);
                }
                if self.stores.is_empty() {
                    let mut directory = profiles.none();
                    directory.awaited = Some(format!("the feed ended at {:.0} without a token", now.wall));
                    state.swap(directory);
                }
                warn!("the feed ended; its last tokens are served until they expire");
            }
        }
        true
    }

    fn token(
        &mut self,
        relayed: lines::Relayed,
        profiles: &mut ProfileSet,
        state: &State,
    ) -> Result<(), &'static str> {
        let lines::Relayed { profile: name, base_url, token } = relayed;
        let base_url: BaseUrl = base_url.parse().map_err(|_| "its `base_url` is none")?;
        match (self.stores.get(&name), profiles.member(&name)) {
            (Some(_), Some(member)) if member.profile.base_url != base_url => {
                Err("its `base_url` is not the one that the profile has")
            }
            (Some(store), _) => {
                store.put(token);
                Ok(())
            }
            (None, _) if !is_name(&name) => Err("its `profile` is no name"),
            (None, _) if self.stores.len() >= MAX_PROFILES => Err("there are too many profiles"),
            (None, _) => {
                let (store, hash) = (feed::Store::default(), token.hash());
                store.put(token);
                let directory = profiles.add(&name, profile::Config::fed(store.receiver(), base_url));
                state.swap(directory);
                info!(profile = name, "the feed has brought a profile");
                if let Some(member) = profiles.member(&name) {
                    announce(member, state, hash);
                }
                self.stores.insert(name, store);
                Ok(())
            }
        }
    }
}

/// [`Fed::take`]; never, without a feed.
pub(super) async fn next(fed: &mut Option<Fed>, profiles: &mut ProfileSet, state: &State) -> bool {
    match fed {
        Some(fed) => fed.take(profiles, state).await,
        None => std::future::pending().await,
    }
}

/// Says on standard output that the profile is served here.
fn announce(member: &std::sync::Arc<crate::server::Member>, state: &State, token: crate::token::TokenHash) {
    let (Some(files), profile) = (member.files.clone(), std::sync::Arc::clone(&member.profile)) else {
        return;
    };
    let socket = state.socket.clone();
    tokio::spawn(async move {
        if let Err(error) = files.wait_until_written(token).await {
            warn!(profile = &*profile.name, %error, "the first token is served, but its SDK files are not written");
            return;
        }
        let serving = api::Serving {
            node: node(),
            socket,
            profile: profile.name.to_string(),
            base_url: profile.base_url.to_string(),
            identity_token_file: files.identity_token.clone(),
            credentials_file: files.credentials.clone(),
        };
        let line = serde_json::to_string(&serving).expect("our own types always serialise");
        // Whoever waits for it may have gone.
        let _ = output::print_line(line);
    });
}

fn node() -> String {
    let told = std::env::var("SLURMD_NODENAME").ok();
    let name = told.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    name.unwrap_or_default().trim().to_owned()
}

/// A job's folder is beside those of other jobs in one of this user's: whoever owns that one could exchange ours.
pub(super) fn prepare(places: &Places) -> anyhow::Result<()> {
    if is_for_a_job(true, &places.runtime)
        && let Some(above) = places.runtime.parent()
    {
        paths::private_dir(above)?;
        remove_leftovers(above);
    }
    Ok(())
}

/// Whether the socket's folder is that of one Slurm job, which ends with it.
pub(super) fn is_for_a_job(fed: bool, runtime: &Path) -> bool {
    fed && paths::is_job_socket(&runtime.join("s"))
}

/// Removes the folders, and so the tokens, of daemons of other jobs that were killed: nobody holds their locks.
fn remove_leftovers(above: &Path) {
    let Ok(entries) = std::fs::read_dir(above) else { return };
    for folder in entries.flatten().filter(|folder| is_for_a_job(true, &folder.path())) {
        if let Ok(lock) = File::open(folder.path().join(paths::LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// A file that is opened when it is first read: opening a named pipe waits for its other end.
enum Opened {
    Not(std::path::PathBuf),
    File(File),
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Self::Not(path) = self {
            *self = Self::File(File::open(path)?);
        }
        match self {
            Self::File(file) => file.read(buffer),
            Self::Not(_) => Ok(0),
        }
    }
}

/// What is answered while there is no profile.
pub(super) const AWAITED: &str = "no token has come on the feed yet";

/// More than anybody feeds.
const MAX_PROFILES: usize = 64;
