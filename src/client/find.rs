//! Which daemon is asked: the one at the usual place, or one that was started on demand.

use std::time::Duration;

use super::{Client, Error};
use crate::clock::Clock;
use crate::env::Env;
use crate::error;
use crate::paths::{self, Key};

impl Client {
    /// The daemon at the place that the environment names, whether one runs there or not.
    ///
    /// A socket at its usual place is used only in a private folder of ours: in a shared `/tmp` somebody else
    /// could have put a daemon of their own, which sends our data to their server. A user who sets
    /// `WANDB_CRED_SOCKET` answers for the folder. Whoever listens there must be this user or root, or the user that
    /// `WANDB_CRED_SOCKET_UID` names.
    pub fn usual(env: &Env) -> Result<Self, error::Error> {
        let guarded = env.var("WANDB_CRED_SOCKET").is_none();
        Ok(Self {
            socket: paths::socket(env)?,
            guarded,
            trusted: paths::socket_uid(env)?,
            clock: Clock::system(),
        })
    }

    /// The daemon that answers: the usual one, else one that was started on demand. If none does, the usual one, whose
    /// first request then says so.
    pub fn find(env: &Env) -> Result<Self, error::Error> {
        match Self::usual(env) {
            Ok(usual) if usual.accepts() => Ok(usual),
            usual => Self::on_demand(&Key::of(env), env).map_or(usual, Ok),
        }
    }

    /// The daemon that was started on demand for this key, if it answers.
    pub fn on_demand(key: &Key, env: &Env) -> Option<Self> {
        let places = paths::bases(env).into_iter().filter_map(|base| key.place(&base.path));
        places.map(|place| Self::guarded_at(place.socket)).find(Self::accepts)
    }

    /// Whether the daemon that was here has left within the last `time`: it may be restarted. One that is killed leaves no
    /// mark.
    pub fn left_lately(&self, time: Duration) -> bool {
        let lock = self.socket.with_file_name(paths::LOCK);
        let left = lock.metadata().and_then(|meta| meta.modified()).ok();
        let left = left.and_then(|at| jiff::Timestamp::try_from(at).ok());
        let now = self.clock.now().wall;
        left.is_some_and(|left| Duration::try_from(now.duration_since(left)).is_ok_and(|ago| ago < time))
    }

    /// Whether somebody listens whom we may ask: a daemon, perhaps a stuck one, or a service manager that starts one now.
    pub fn accepts(&self) -> bool {
        matches!(self.connect(CONNECT_TIMEOUT), Ok(_) | Err(Error::TimedOut { .. }))
    }
}

/// For a daemon whose queue of connections is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
