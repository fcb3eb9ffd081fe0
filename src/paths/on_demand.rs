//! The folder of a daemon that is started on demand: all who need the same daemon come to the same folder.
//!
//! Its name is a key: the scheduler's job and step (or the user), this machine since its start, and a hash of what decides
//! which identity a daemon would have. So the ranks of a job share one, and two jobs never mix identities.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{LOCK, SOCKET_NAME, SOCKET_VARIABLE, check_socket_length, identity, private_dir};
use crate::env::Env;
use crate::error::{Error, Result, Stage};

/// Names one daemon on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    name: String,
    /// How long the daemon stays after its last job.
    pub grace: Duration,
}

/// Where a daemon on demand is, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDemand {
    /// Mode 0700; removed with everything in it when the daemon ends.
    pub folder: PathBuf,
    pub socket: PathBuf,
    /// Beside the folder. Held to start the daemon, and by the daemon while it leaves.
    pub start_lock: PathBuf,
}

impl Key {
    /// `WANDB_CRED_SHARE` names a key; else the job and the identity that the environment describes do.
    pub fn of(env: &Env) -> Self {
        let job = job(env);
        let grace = if job.is_some() || !has_login_session(env) { JOB_GRACE } else { SESSION_GRACE };
        let machine = &identity::digest([machine().as_bytes()])[..8];
        let name = match env.var(SHARE_VARIABLE) {
            Some(share) => format!("share-{machine}{}", &identity::digest([share.as_bytes()])[..8]),
            None => {
                let job = job.unwrap_or_else(|| "user".to_owned());
                format!("{job}-{machine}{}", &identity::of(env)[..8])
            }
        };
        Self { name, grace }
    }

    /// Its place in `base`; `None` if a socket there would have too long a path.
    pub fn place(&self, base: &Path) -> Option<OnDemand> {
        OnDemand::at(base.join(&self.name))
    }
}

impl OnDemand {
    fn at(folder: PathBuf) -> Option<Self> {
        let socket = folder.join(SOCKET_NAME);
        check_socket_length(&socket).ok()?;
        let start_lock = start_lock(&folder)?;
        Some(Self { folder, socket, start_lock })
    }

    /// The folders in `base` of daemons that were started on this machine since it started. Others may be in use on other
    /// machines that share the folder.
    pub fn all_of_this_machine(base: &Path) -> Vec<Self> {
        let machine = &identity::digest([machine().as_bytes()])[..8];
        let ours = |name: &str| suffix(name).is_some_and(|suffix| suffix.starts_with(machine));
        let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
        entries
            .filter(|entry| ours(&entry.file_name().to_string_lossy()))
            .filter_map(|entry| Self::at(entry.path()))
            .collect()
    }

    /// The lock that the daemon serving in the folder holds.
    pub fn served_lock(&self) -> PathBuf {
        self.folder.join(LOCK)
    }
}

/// The start lock that belongs to a daemon's folder.
pub fn start_lock(folder: &Path) -> Option<PathBuf> {
    Some(folder.with_file_name(format!(".{}.start", folder.file_name()?.to_str()?)))
}

/// Whether a folder has the name of one that is made on demand.
pub fn is_on_demand(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| suffix(&name.to_string_lossy()).is_some())
}

/// A folder in which daemons on demand have theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub path: PathBuf,
    /// The variable that names it.
    pub variable: Option<&'static str>,
}

impl Base {
    /// Makes the folder if what is above it is there. Fails if it cannot be used: batch jobs inherit variables that name
    /// folders of another machine, and in /tmp another user may have taken the name.
    pub fn prepare(&self) -> Result<()> {
        let above = self.path.parent().unwrap_or(Path::new("/"));
        // Never made: /run/user/UID belongs to the session manager.
        above.metadata().map_err(|error| Error::io(Stage::Files, above, &error))?;
        private_dir(&self.path)
    }
}

/// Where to look for a daemon on demand, in this order, and where to start one: in the first that is usable.
pub fn bases(env: &Env) -> Vec<Base> {
    let uid = rustix::process::geteuid().as_raw();
    let mut bases: Vec<Base> = Vec::new();
    let mut add = |path: PathBuf, variable| {
        if path.is_absolute() && bases.iter().all(|base| base.path != path) {
            bases.push(Base { path, variable });
        }
    };
    if let Some(folder) = env.path(SOCKET_VARIABLE).as_deref().and_then(Path::parent) {
        let base = if is_on_demand(folder) { folder.parent().unwrap_or(folder) } else { folder };
        add(base.to_owned(), Some(SOCKET_VARIABLE));
    }
    if let Some(dir) = env.path("XDG_RUNTIME_DIR") {
        add(dir.join("wandb-cred"), Some("XDG_RUNTIME_DIR"));
    }
    add(PathBuf::from(format!("/run/user/{uid}/wandb-cred")), None);
    if let Some(dir) = env.path("TMPDIR") {
        add(dir.join(format!("wandb-cred-{uid}")), Some("TMPDIR"));
    }
    add(PathBuf::from(format!("/tmp/wandb-cred-{uid}")), None);
    for n in 1..=SQUATTED {
        add(PathBuf::from(format!("/tmp/wandb-cred-{uid}-{n}")), None);
    }
    bases
}

/// The 16 hexadecimal digits at the end of an on-demand folder's name.
fn suffix(name: &str) -> Option<&str> {
    let (kind, suffix) = name.rsplit_once('-')?;
    let kind = kind.split('-').next().unwrap_or_default();
    let known =
        ["user", "share"].contains(&kind) || SCHEDULERS.iter().any(|scheduler| scheduler.name == kind);
    (known && suffix.len() == 16 && suffix.bytes().all(|b| b.is_ascii_hexdigit())).then_some(suffix)
}

/// The job that this process belongs to, as a part of a file name.
fn job(env: &Env) -> Option<String> {
    let SchedulerJob { scheduler, id, step } = scheduler_job(|name| env.var(name))?;
    let id = step.map_or(id.clone(), |step| format!("{id}.{step}"));
    let id: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).take(40).collect();
    Some(format!("{scheduler}-{id}"))
}

/// A job of a batch system or a CI system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerJob {
    pub scheduler: String,
    pub id: String,
    /// The part of it that ends by itself.
    pub step: Option<String>,
}

/// The job that these variables tell of.
pub fn scheduler_job(variable: impl Fn(&str) -> Option<String>) -> Option<SchedulerJob> {
    SCHEDULERS.iter().find_map(|known| {
        let id = variable(known.job)?;
        let step = known.part.map(|(name, without)| variable(name).unwrap_or(without.to_owned()));
        Some(SchedulerJob { scheduler: known.name.to_owned(), id, step })
    })
}

/// Whether this runs where programs start together and one may be waiting for another: in a job of a batch or CI system, or in
/// a pod. What a person has to do, nobody does there; a file that is not there may come in a moment.
pub fn starts_with_others(env: &Env) -> bool {
    // Kubernetes, "Environment variables" of "Service": in every container of a pod.
    scheduler_job(|name| env.var(name)).is_some() || env.var("KUBERNETES_SERVICE_HOST").is_some()
}

/// How a job finds out its own name.
struct Scheduler {
    name: &'static str,
    job: &'static str,
    /// What distinguishes parts of a job that end by themselves, and the name of the part that has none.
    part: Option<(&'static str, &'static str)>,
}

/// In the order of precedence: a batch job may start CI runners, not the other way round.
const SCHEDULERS: [Scheduler; 9] = [
    // srun(1). The step too: with cgroups, a step's end ends what it started. The batch script has no number.
    Scheduler { name: "slurm", job: "SLURM_JOB_ID", part: Some(("SLURM_STEP_ID", "batch")) },
    // qsub(1B) of OpenPBS.
    Scheduler { name: "pbs", job: "PBS_JOBID", part: None },
    // LSF's environment variable reference.
    Scheduler { name: "lsf", job: "LSB_JOBID", part: Some(("LSB_JOBINDEX", "0")) },
    // flux-environment(7).
    Scheduler { name: "flux", job: "FLUX_JOB_ID", part: None },
    // GitHub's and Forgejo's default variables.
    Scheduler { name: "github", job: "GITHUB_RUN_ID", part: Some(("GITHUB_JOB", "job")) },
    // GitLab's predefined variables.
    Scheduler { name: "gitlab", job: "CI_JOB_ID", part: None },
    Scheduler { name: "buildkite", job: "BUILDKITE_JOB_ID", part: None },
    Scheduler { name: "circleci", job: "CIRCLE_WORKFLOW_JOB_ID", part: None },
    // Azure Pipelines' predefined variables.
    Scheduler { name: "azure", job: "SYSTEM_JOBID", part: None },
];

/// Whether somebody is logged in here: there, a daemon that stays spares the next command a start.
fn has_login_session(env: &Env) -> bool {
    let uid = rustix::process::geteuid().as_raw();
    env.path("XDG_RUNTIME_DIR").is_some_and(|dir| dir.is_dir())
        || Path::new(&format!("/run/user/{uid}")).is_dir()
}

/// Names this machine since its start: folders may be shared between machines, and outlive a boot.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let name = rustix::system::uname();
    format!("{} {}", boot.trim(), name.nodename().to_string_lossy())
}

/// All who set it to the same name share one daemon, whatever else is in their environment.
const SHARE_VARIABLE: &str = "WANDB_CRED_SHARE";

/// A batch job that starts one command after another need not start a daemon for each.
const JOB_GRACE: Duration = Duration::from_secs(10);

/// Where somebody works: they may come back.
const SESSION_GRACE: Duration = Duration::from_secs(15 * 60);

/// More names than anybody takes.
const SQUATTED: u32 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(vars: &[(&str, &str)]) -> Key {
        Key::of(&Env::fixed(vars.iter().copied()))
    }

    #[test]
    fn the_ranks_of_a_step_share_a_key_and_two_jobs_do_not() {
        let rank =
            |job, step, rank| key(&[("SLURM_JOB_ID", job), ("SLURM_STEP_ID", step), ("SLURM_PROCID", rank)]);
        assert_eq!(rank("42", "0", "0"), rank("42", "0", "7"));
        assert_ne!(rank("42", "0", "0"), rank("42", "1", "0"));
        assert_ne!(rank("42", "0", "0"), rank("43", "0", "0"));
        assert!(rank("42", "0", "0").name.starts_with("slurm-42.0-"));
        assert!(key(&[("SLURM_JOB_ID", "42")]).name.starts_with("slurm-42.batch-"));
        assert!(key(&[("PBS_JOBID", "7[3].host/x")]).name.starts_with("pbs-7_3_.host_x-"));
        assert_eq!(rank("42", "0", "0").grace, JOB_GRACE);
    }

    #[test]
    fn another_identity_is_another_key() {
        let plain = key(&[("HOME", "/nonexistent")]);
        for (name, value) in
            [("AWS_PROFILE", "b"), ("WANDB_ID_TOKEN", "a.b.c"), ("HOME", "/other"), ("https_proxy", "p")]
        {
            assert_ne!(plain, key(&[("HOME", "/nonexistent"), (name, value)]), "{name}");
        }
        assert_eq!(plain, key(&[("HOME", "/nonexistent"), ("PWD", "/x"), ("RANK", "3")]));
        let share = |home| key(&[("HOME", home), ("WANDB_CRED_SHARE", "team")]);
        assert_eq!(share("/a"), share("/b"));
    }

    #[test]
    fn a_variable_that_the_configuration_names_counts() {
        let temp = tempfile::tempdir().expect("temp dir");
        let config = temp.path().join("config.toml");
        let at = |text: &str, jwt: &str| {
            std::fs::write(&config, text).expect("written");
            key(&[("WANDB_CRED_CONFIG", config.to_str().expect("Unicode")), ("MY_JWT", jwt)])
        };
        assert_eq!(at("x = 1", "a"), at("x = 1", "b"));
        assert_ne!(at("variable = \"MY_JWT\"", "a"), at("variable = \"MY_JWT\"", "b"));
        assert_ne!(at("x = 1", "a"), at("x = 2", "a"), "another configuration");
    }

    #[test]
    fn inside_a_job_the_sdks_variables_are_no_identity() {
        let (token, file) = ("/r/profiles/w/identity-token", "/r/profiles/w/credentials.json");
        let inside = [("WANDB_IDENTITY_TOKEN_FILE", token), ("WANDB_CREDENTIALS_FILE", file)];
        assert_eq!(key(&[]), key(&inside));
        assert_ne!(key(&[]), key(&[("WANDB_IDENTITY_TOKEN_FILE", "/r/jwt")]));
    }

    #[test]
    fn names_are_recognised_and_nothing_else() {
        let base = Path::new("/tmp/w");
        let place = key(&[("SLURM_JOB_ID", "42")]).place(base).expect("short");
        assert!(is_on_demand(&place.folder));
        assert_eq!(place.start_lock.parent(), Some(base));
        for other in ["profiles", "exec-4711", "user-x", "user-0123456789abcdeg", "mine-0123456789abcdef"] {
            assert!(!is_on_demand(&base.join(other)), "{other}");
        }
        let long = format!("/{}", "x".repeat(80));
        assert_eq!(key(&[]).place(Path::new(&long)), None);
    }

    #[test]
    fn the_bases_follow_the_environment_and_end_in_tmp() {
        let env = Env::fixed([
            ("XDG_RUNTIME_DIR", "/run/u"),
            ("TMPDIR", "/scratch"),
            ("WANDB_CRED_SOCKET", "/a/b/s"),
        ]);
        let found: Vec<_> = bases(&env).into_iter().map(|base| base.variable).collect();
        assert_eq!(found[..4], [Some("WANDB_CRED_SOCKET"), Some("XDG_RUNTIME_DIR"), None, Some("TMPDIR")]);
        let stale = key(&[]).place(Path::new("/a/b")).expect("short").socket;
        let env = Env::fixed([("WANDB_CRED_SOCKET", stale.to_str().expect("Unicode"))]);
        assert_eq!(bases(&env)[0].path, Path::new("/a/b"), "next to the folder of a daemon that has ended");
    }
}
