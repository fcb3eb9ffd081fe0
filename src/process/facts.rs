//! What tells people who a process is: its program, and the job and the container that it belongs to.
//!
//! From `/proc`, so there is nothing elsewhere. Of another user's process the kernel shows less. The scheduler's variables
//! are the process's own word, its control group is the kernel's.

use std::fs;
use std::io::Read as _;

use serde::{Deserialize, Serialize};

use super::Process;
use crate::foreign_text;
use crate::paths::{self, SchedulerJob};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub uid: Option<u32>,
    /// The kernel's name of it, of 15 bytes at most.
    pub command: Option<String>,
    pub executable: Option<String>,
    pub cgroup: Option<String>,
    pub container: Option<String>,
    pub job: Option<SchedulerJob>,
}

impl Facts {
    /// Blocks: the kernel may wait for the process's memory.
    pub fn of(process: Process) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", process.pid)).ok();
        let link = fs::read_link(format!("/proc/{}/exe", process.pid)).ok();
        let cgroup = read("cgroup").as_deref().and_then(own_cgroup).map(str::to_owned);
        let job = environment(process.pid)
            .and_then(|environment| paths::scheduler_job(|name| variable(&environment, name)))
            .or_else(|| cgroup.as_deref().and_then(slurm_job));
        let facts = Self {
            uid: read("status").as_deref().and_then(uid),
            command: read("comm").map(|name| foreign_text::clean(&name, MAX_NAME)),
            executable: link.map(|path| foreign_text::clean(&path.to_string_lossy(), MAX_PATH)),
            container: cgroup.as_deref().and_then(container).map(str::to_owned),
            cgroup: cgroup.map(|path| foreign_text::clean(&path, MAX_PATH)),
            job: job.map(|job| SchedulerJob {
                id: foreign_text::clean(&job.id, MAX_NAME),
                step: job.step.map(|step| foreign_text::clean(&step, MAX_NAME)),
                ..job
            }),
        };
        // Else some of it may be of another process that got the number.
        if process.is_running() { facts } else { Self::default() }
    }
}

/// The user it acts as (proc_pid_status(5)).
fn uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// What the process was started with, secrets and all: only what is looked for is kept.
fn environment(pid: u32) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn variable(environment: &[u8], name: &str) -> Option<String> {
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(value).ok().filter(|value| !value.is_empty()).map(str::to_owned)
}

/// The path in `/proc/PID/cgroup` (cgroups(7)): that of version 2, else the deepest of version 1.
fn own_cgroup(text: &str) -> Option<&str> {
    let paths = || text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let second = text.lines().find_map(|line| line.strip_prefix("0::"));
    second.filter(|path| *path != "/").or_else(|| paths().max_by_key(|path| path.len()))
}

/// The engine's id of a container: 64 hexadecimal digits in the last such part of the path (`docker-ID.scope`,
/// `crio-ID.scope`, `/kubepods/.../ID`).
fn container(cgroup: &str) -> Option<&str> {
    cgroup.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit(['-', ':']).next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    })
}

/// Slurm's groups: `.../job_42/step_0/...` below `slurm` or `slurmstepd.scope`.
fn slurm_job(cgroup: &str) -> Option<SchedulerJob> {
    let mut parts = cgroup.split('/').skip_while(|part| !part.contains("slurm"));
    let id = parts.find_map(|part| part.strip_prefix("job_"))?.to_owned();
    let step = parts.next().and_then(|part| part.strip_prefix("step_")).map(str::to_owned);
    Some(SchedulerJob { scheduler: "slurm".to_owned(), id, step })
}

/// Longer names are not real ones.
const MAX_NAME: usize = 64;
const MAX_PATH: usize = 512;

/// More than any environment has before its scheduler's variables.
const MAX_ENVIRONMENT: u64 = 1024 * 1024;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_a_job_is_known_by_its_environment() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env_clear()
            .envs([("SLURM_JOB_ID", "42"), ("SLURM_STEP_ID", "0\x1b[2J")])
            .spawn()
            .expect("starts");
        let process = Process::find(child.id()).expect("it runs");
        // Between fork and exec it is still this one.
        let facts = loop {
            let facts = Facts::of(process);
            if facts.command.as_deref() == Some("sleep") {
                break facts;
            }
        };
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        assert_eq!(facts.uid, Some(rustix::process::geteuid().as_raw()));
        let job = facts.job.expect("a job");
        assert_eq!((job.scheduler.as_str(), job.id.as_str()), ("slurm", "42"));
        assert!(job.step.as_deref().is_some_and(|step| !step.contains('\x1b')), "{:?}", job.step);
        assert!(facts.executable.is_some_and(|path| path.starts_with('/')));
        assert_eq!(Facts::of(process), Facts::default(), "it has ended");
    }

    #[test]
    fn groups_tell_of_containers_and_jobs() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/user.slice/user@1.service/user.slice/libpod-{id}.scope/container"),
            format!("/kubepods/burstable/pod1/{id}"),
        ] {
            assert_eq!(container(&path), Some(id.as_str()), "{path}");
        }
        assert_eq!(container("/user.slice/session-3.scope"), None);
        let job = slurm_job("/system.slice/slurmstepd.scope/job_42/step_batch/user/task_0").expect("a job");
        assert_eq!((job.id.as_str(), job.step.as_deref()), ("42", Some("batch")));
        assert_eq!(
            slurm_job("/slurm/uid_1000/job_7/step_3/task_0").expect("a job").step.as_deref(),
            Some("3")
        );
        assert_eq!(slurm_job("/work/job_42/step_0"), None);
    }

    #[test]
    fn the_group_of_either_version_is_found() {
        assert_eq!(own_cgroup("0::/user.slice/a\n"), Some("/user.slice/a"));
        assert_eq!(own_cgroup("4:memory:/slurm/job_1\n1:name=systemd:/\n0::/\n"), Some("/slurm/job_1"));
        assert_eq!(own_cgroup("0::/\n"), Some("/"));
    }
}
