//! The files of jobs that use several profiles at once: one pair for each combination that a job has asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::{AbortHandle, JoinSet};

use super::directory::Directory;
use crate::clock::Clock;
use crate::paths::PROFILES;
use crate::sdk_files::Combined;

pub(super) struct Combinations {
    folder: PathBuf,
    clock: Clock,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    files: BTreeMap<String, (Arc<Combined>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Combinations {
    pub(super) fn new(socket: &Path, clock: Clock) -> Self {
        let folder = socket.parent().unwrap_or(Path::new("/")).join(PROFILES);
        Self { folder, clock, running: Mutex::default() }
    }

    /// The files of this combination, which are kept fresh from now on.
    pub(super) fn get(&self, name: &str, directory: &Directory) -> Result<Arc<Combined>, String> {
        let mut running = self.running();
        if let Some((files, _)) = running.files.get(name) {
            return Ok(Arc::clone(files));
        }
        if running.files.len() >= MOST {
            return Err(format!("there are {MOST} combinations of profiles already"));
        }
        self.begin(&mut running, name, directory)
            .ok_or_else(|| "one of the profiles has just gone".to_owned())
    }

    fn begin(&self, running: &mut Running, name: &str, directory: &Directory) -> Option<Arc<Combined>> {
        let profiles = directory.several(name)?.into_iter().map(|member| Arc::clone(&member.profile));
        let files = Arc::new(Combined::new(self.folder.join(name), profiles.collect()));
        let task = running.tasks.spawn(Arc::clone(&files).run(self.clock.clone()));
        running.files.insert(name.to_owned(), (Arc::clone(&files), task));
        Some(files)
    }

    /// Those that jobs use, among `names`, with the profiles that are there now. Others end.
    pub(super) fn start(&self, names: BTreeSet<String>, directory: &Directory) {
        let mut running = self.running();
        let before = std::mem::take(&mut *running);
        for (name, (files, task)) in before.files {
            if !names.contains(&name) {
                task.abort();
                // A job that comes meanwhile has them written again.
                tokio::spawn(async move { files.remove().await });
            }
        }
        for name in names.iter().filter(|name| directory.several(name).is_some_and(|all| all.len() > 1)) {
            self.begin(&mut running, name, directory);
        }
    }

    /// The combination that has this file.
    pub(super) fn owner_of(&self, identity_token: &Path) -> Option<String> {
        let running = self.running();
        let found = running.files.iter().find(|(_, (files, _))| files.identity_token == identity_token);
        found.map(|(name, _)| name.clone())
    }

    /// Removes all files.
    pub(super) async fn end(&self) {
        let ended = std::mem::take(&mut *self.running());
        for (files, task) in ended.files.into_values() {
            task.abort();
            files.remove().await;
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than anybody's scripts come to.
const MOST: usize = 64;
