//! Processes that use the SDK files: a profile stays hot until each has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;

use crate::keeper::{Demand, JobGuard};

/// The watched processes. The key is a process and the profile that it uses.
#[derive(Default)]
pub(super) struct Jobs(Arc<Mutex<HashMap<(u32, usize), JobGuard>>>);

impl Jobs {
    /// Keeps the profile of `demand` hot until process `pid` has ended. A second call for the same process changes
    /// nothing.
    pub(super) fn watch(&self, pid: u32, demand: &Arc<Demand>) -> Result<(), String> {
        let not_found = || format!("there is no process {pid}");
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(not_found)?;
        // The demand's address identifies the profile: after a reload another one may have the same name.
        let key = (pid, Arc::as_ptr(demand) as usize);
        {
            let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.contains_key(&key) {
                return Ok(());
            }
            if jobs.len() >= MAX_JOBS {
                return Err(format!("the daemon already watches {MAX_JOBS} jobs"));
            }
            jobs.insert(key, demand.hold());
        }
        let end = crate::process::end_of(process);
        let jobs = Arc::clone(&self.0);
        let remove = move || drop(jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&key));
        match end {
            Ok(end) => {
                tokio::spawn(async move {
                    end.await;
                    remove();
                });
                Ok(())
            }
            Err(_) => {
                remove();
                Err(not_found())
            }
        }
    }
}

/// More than any node runs.
const MAX_JOBS: usize = 4096;
