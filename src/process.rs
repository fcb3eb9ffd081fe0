//! Waits for processes that are not our children, and protects the memory of our own.

use std::io;

use rustix::process::Pid;

/// Returns a future that completes when process `pid` ends. Fails at once if there is no such process.
///
/// On Linux a pidfd refers to the process itself, so a reused number cannot be mistaken for it.
#[cfg(target_os = "linux")]
pub fn end_of(pid: Pid) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use rustix::process::{PidfdFlags, pidfd_open};
    let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    let pollable = tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(fd)?;
    Ok(async move {
        // Readable means ended (pidfd_open(2)). An error means that we cannot know; count that as ended too.
        let _ = pollable.readable().await;
    })
}

/// Elsewhere we check every two seconds whether the process is still there.
#[cfg(not(target_os = "linux"))]
pub fn end_of(pid: Pid) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    rustix::process::test_kill_process(pid)?;
    Ok(async move {
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
    })
}

/// Keeps tokens out of core files, out of reach of this user's debuggers and, if the limits allow it, out of swap. Best
/// effort: the system may refuse each measure, and correctness needs none.
pub fn harden() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Each connection needs a descriptor: raise the limit as far as the hard limit allows.
    let files = getrlimit(Resource::Nofile);
    let wanted = files.maximum.map_or(MAX_FILES, |most| most.min(MAX_FILES));
    if files.current.is_some_and(|now| now < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: files.maximum });
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{MlockAllFlags, mlockall};
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        // With a finite limit, the first allocation beyond it would kill the process.
        if getrlimit(Resource::Memlock).current.is_none() {
            let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
        }
    }
}

/// Enough for all connections and everything else.
const MAX_FILES: u64 = 8192;
