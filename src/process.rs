//! Processes that are not our children: which one is meant, whether it runs, when it ends. And our own: its memory
//! and its limits.

use std::io;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

pub mod carriers;
mod facts;
#[cfg(target_os = "linux")]
pub mod namespace;

pub use facts::Facts;

/// A process, so named that a later one with the same number is not mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// When it began, in the kernel's ticks since boot. `None` where the system does not say.
    pub start: Option<u64>,
}

impl Process {
    /// The process with this number, if there is one now.
    pub fn find(pid: u32) -> Option<Self> {
        let raw = raw(pid)?;
        match state(pid) {
            Some(State { ended: true, .. }) => None,
            Some(State { start, .. }) => Some(Self { pid, start: Some(start) }),
            // Without /proc; EPERM says that there is one, of another user.
            None => match rustix::process::test_kill_process(raw) {
                Ok(()) | Err(rustix::io::Errno::PERM) => Some(Self { pid, start: None }),
                Err(_) => None,
            },
        }
    }

    pub fn is_running(self) -> bool {
        Self::find(self.pid).is_some_and(|found| found.start == self.start)
    }

    /// Waits until it ends. The look at it is made now: what runs then is followed to its end.
    ///
    /// On Linux a pidfd refers to the process itself. Kernels before 5.3 have none, and some containers forbid them:
    /// there, as on other systems, we look every two seconds.
    pub fn end(self) -> impl Future<Output = ()> + Send + 'static {
        let pidfd = pidfd(self.pid);
        // The pidfd was opened first, so it refers to the process that is found to run now.
        let running = self.is_running();
        async move {
            if !running {
                return;
            }
            match pidfd {
                // Readable means ended (pidfd_open(2)).
                Some(pidfd) if pidfd.readable().await.is_ok() => {}
                _ => {
                    while self.is_running() {
                        tokio::time::sleep(POLL_INTERVAL).await;
                    }
                }
            }
        }
    }
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(target_os = "linux")]
fn pidfd(pid: u32) -> Option<tokio::net::unix::pipe::Receiver> {
    use rustix::process::{PidfdFlags, pidfd_open};
    // No flags: PIDFD_NONBLOCK needs Linux 5.10, and only read(2), which we do not call, would block.
    let fd = pidfd_open(raw(pid)?, PidfdFlags::empty()).ok()?;
    tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(fd).ok()
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_pid: u32) -> Option<tokio::net::unix::pipe::Receiver> {
    None
}

struct State {
    start: u64,
    /// Only its parent has not taken notice yet.
    ended: bool,
}

/// What `/proc` says of it.
#[cfg(target_os = "linux")]
fn state(pid: u32) -> Option<State> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

#[cfg(not(target_os = "linux"))]
fn state(_pid: u32) -> Option<State> {
    None
}

/// `/proc/PID/stat` (proc_pid_stat(5)). The second field is a name that may hold anything, brackets too.
#[cfg(target_os = "linux")]
fn parse_stat(stat: &str) -> Option<State> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    // Field 22; the state was field 3.
    Some(State { start: fields.nth(18)?.parse().ok()?, ended })
}

/// Where no pidfd tells of the end.
const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_secs(2);

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

/// Names this boot and this PID namespace: what is recorded of processes means nothing elsewhere.
pub fn system() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// Whether a program that could not be started may start in a moment: it is being written (ETXTBSY), or the system is short of
/// processes, memory or descriptors.
pub fn may_start_later(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::TXTBSY, Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::INTR];
    passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// How many files this process may have open; `None` without a limit.
pub fn file_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Enough for all connections and everything else.
const MAX_FILES: u64 = 8192;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_start_once_resources_are_back() {
        use rustix::io::Errno;
        for errno in [Errno::TXTBSY, Errno::AGAIN, Errno::NOMEM, Errno::MFILE] {
            assert!(may_start_later(&errno.into()), "{errno:?}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC, Errno::NOTDIR] {
            assert!(!may_start_later(&errno.into()), "{errno:?}");
        }
    }

    #[test]
    fn a_name_with_brackets_does_not_hide_the_start_time() {
        let stat = "7 (a) Z 1) S 1 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        let state = parse_stat(stat).expect("read");
        assert_eq!((state.start, state.ended), (4711, false));
        assert!(parse_stat("7 (a) Z 1 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1").expect("read").ended);
        assert!(parse_stat("7 (a").is_none() && parse_stat("7 (a) S").is_none());
    }

    #[tokio::test]
    async fn a_process_with_the_same_number_and_another_start_is_another_one() {
        let own = Process::find(std::process::id()).expect("we run");
        assert!(own.is_running());
        let earlier = Process { start: own.start.map(|start| start - 1), ..own };
        assert!(!earlier.is_running());
        earlier.end().await;
        assert_eq!(Process::find(u32::MAX), None);
        assert_eq!(Process::find(0), None);
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_with_and_without_pidfd() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("starts");
        let process = Process::find(child.id()).expect("it runs");
        let (by_pidfd, before) = (tokio::spawn(process.end()), Process::find(child.id()));
        tokio::task::yield_now().await;
        assert!(!by_pidfd.is_finished());
        assert_eq!(before, Some(process));
        child.kill().expect("it runs");
        by_pidfd.await.expect("no panic");
        // Nobody has waited for it: a zombie counts as ended.
        assert!(!process.is_running());
        child.wait().expect("it ended");
    }
}
