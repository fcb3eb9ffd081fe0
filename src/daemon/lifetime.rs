//! Until when the daemon serves: until it is told to stop, or as long as it is needed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tracing::{debug, info};

use crate::clock::Clock;
use crate::paths;
use crate::process::{Process, carriers};
use crate::server::State;
use crate::start_lock::StartLock;

/// What ends the daemon beside signals.
pub(super) enum Lifetime {
    /// Nothing: a service.
    Service,
    /// The end of this process, which started it for itself alone.
    Private(Process),
    /// The feed's word: a node's daemon in a batch job.
    ForAJob { folder: PathBuf },
    /// That nothing needs it any more.
    OnDemand {
        /// After the last job and the last request.
        grace: Duration,
        /// Held while leaving.
        start_lock: PathBuf,
        folder: PathBuf,
    },
}

impl Lifetime {
    pub(super) fn new(
        lifetime_of: Option<u32>,
        until_unneeded: Option<Duration>,
        for_a_job: bool,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        if let Some(pid) = lifetime_of {
            let process = Process::find(pid).context("the process of --lifetime-of does not run")?;
            return Ok(Self::Private(process));
        }
        if for_a_job {
            return Ok(Self::ForAJob { folder: folder.to_owned() });
        }
        let Some(grace) = until_unneeded else { return Ok(Self::Service) };
        let start_lock = paths::start_lock(folder).context("the socket's folder has no usual name")?;
        Ok(Self::OnDemand { grace, start_lock, folder: folder.to_owned() })
    }

    /// Whether it was started for a job, and goes on while one needs it even if it is told to stop: a batch system signals
    /// all of a job's processes, and some of them have things to save.
    pub(super) fn outlives_signals(&self, state: &State) -> bool {
        match self {
            Self::Service => false,
            // Its tasks need not register: whether one has our paths is found out while it waits.
            Self::ForAJob { .. } => true,
            Self::Private(_) | Self::OnDemand { .. } => state.jobs_running() > 0,
        }
    }

    /// The lock for a daemon that leaves because it was told to, if it is free.
    pub(super) fn leave(&self) -> Option<StartLock> {
        let Self::OnDemand { start_lock, .. } = self else { return None };
        StartLock::try_take(start_lock).ok().flatten()
    }

    /// Waits for the end. `told` says that a signal has asked for it, so that only running jobs keep the daemon. For a daemon
    /// on demand, the lock that keeps others from finding it while it leaves.
    pub(super) async fn over(&self, state: &State, clock: &Clock, told: bool) -> Option<StartLock> {
        match self {
            Self::Service => std::future::pending().await,
            Self::Private(process) => {
                process.end().await;
                None
            }
            Self::ForAJob { .. } if !told => std::future::pending().await,
            Self::ForAJob { folder } => loop {
                state.jobs_ended().await;
                if !adopt(state, folder).await {
                    return None;
                }
            },
            Self::OnDemand { grace, start_lock, folder } => loop {
                state.jobs_ended().await;
                let mut jobs = state.job_changes();
                // A job that came and ended while all processes were looked at may have left a child.
                if adopt(state, folder).await || jobs.has_changed().unwrap_or(false) {
                    continue;
                }
                if *grace < LONG_GRACE {
                    // A batch system kills what is left of a step, us too, at any moment from now on.
                    state.withdraw_files().await;
                }
                let uses = state.uses();
                if !told {
                    tokio::select! {
                        _ = clock.sleep(*grace) => {}
                        // Even one that has ended since: its files are still here.
                        _ = jobs.changed() => continue,
                    }
                }
                if state.uses() != uses || state.is_asked() {
                    // Told to stop, it has not slept: each round looks at all processes.
                    let _ = clock.sleep(BUSY).await;
                    continue;
                }
                match StartLock::try_take(start_lock) {
                    // In the same step as the look at the jobs: nobody registers in between.
                    Ok(Some(lock)) if state.close_if_unneeded(uses) => {
                        info!("nothing needs this daemon any more");
                        return Some(lock);
                    }
                    Ok(Some(_)) => {}
                    // Somebody starts a daemon here, and is about to find this one.
                    Ok(None) => drop(clock.sleep(BUSY).await),
                    Err(error) => {
                        debug!(%error, "leaving without the start lock");
                        state.close_if_unneeded(uses);
                        return None;
                    }
                }
            },
        }
    }
}

/// Makes jobs of the processes that still carry our paths, or a key of the proxy, in their environment: children that
/// outlive the process that registered (`nohup`, a terminal multiplexer, a cluster's own daemons). Whether there are any.
async fn adopt(state: &State, folder: &Path) -> bool {
    let profiles = folder.join(paths::PROFILES);
    let ours = move |value: &OsStr| Path::new(value).starts_with(&profiles).then(|| PathBuf::from(value));
    let look = crate::blocking::run(move || carriers::of(paths::IDENTITY_TOKEN_FILE, ours)).await;
    let mut adopted = state.adopt_holders_of_keys().await;
    for (process, path) in look.unwrap_or_default() {
        adopted |= state.adopt(process, &path).await;
    }
    adopted
}

/// Shorter graces are those of jobs.
const LONG_GRACE: Duration = Duration::from_secs(60);

const BUSY: Duration = Duration::from_secs(1);
