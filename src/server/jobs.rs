//! Processes that use the SDK files: a profile stays hot until each has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;

use crate::keeper::{Demand, JobGuard};

/// Who is watched for which profile.
#[derive(Default)]
pub(super) struct Jobs(Arc<Mutex<HashMap<(u32, usize), JobGuard>>>);

impl Jobs {
    /// Holds `demand` until process `pid` has ended. Asking twice for the same changes nothing.
    pub(super) fn watch(&self, pid: u32, demand: &Arc<Demand>) -> Result<(), String> {
        let gone = || format!("there is no process {pid} to watch");
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        // The demand's address names the profile, also when a reload has replaced one of the same name.
        let key = (pid, Arc::as_ptr(demand) as usize);
        {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if held.contains_key(&key) {
                return Ok(());
            }
            if held.len() >= MAX_JOBS {
                return Err(format!("{MAX_JOBS} jobs are watched already"));
            }
            held.insert(key, demand.hold());
        }
        let end = crate::process::end_of(process);
        let held = Arc::clone(&self.0);
        let let_go = move || drop(held.lock().unwrap_or_else(PoisonError::into_inner).remove(&key));
        match end {
            Ok(end) => {
                tokio::spawn(async move {
                    end.await;
                    let_go();
                });
                Ok(())
            }
            Err(_) => {
                let_go();
                Err(gone())
            }
        }
    }
}

/// More than any node runs; a bound all the same.
const MAX_JOBS: usize = 4096;
