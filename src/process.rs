//! Waiting for the end of a process that is not our child, and making this one hard to look into.

use std::io;

use rustix::process::Pid;

/// A future that ends when `pid` does. Fails at once if there is no such process.
///
/// On Linux a pidfd names the process itself, so a reused number cannot be mistaken for it.
#[cfg(target_os = "linux")]
pub fn end_of(pid: Pid) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use rustix::process::{PidfdFlags, pidfd_open};
    let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    let pollable = tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(fd)?;
    Ok(async move {
        // Readable means ended (pidfd_open(2)); an error means that we cannot know, and let go.
        let _ = pollable.readable().await;
    })
}

/// Elsewhere the process is looked for now and then.
#[cfg(not(target_os = "linux"))]
pub fn end_of(pid: Pid) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    rustix::process::test_kill_process(pid)?;
    Ok(async move {
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
    })
}

/// Keeps tokens out of core files, debuggers of this user and, where the limits allow it, swap. Best effort:
/// each measure may be refused, and none is needed for correctness.
pub fn harden() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // A socket per connection: take what the hard limit gives.
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
        // Under a finite limit a locked process dies of the first allocation beyond it.
        if getrlimit(Resource::Memlock).current.is_none() {
            let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
        }
    }
}

/// Connections, and some for everything else.
const MAX_FILES: u64 = 8192;
