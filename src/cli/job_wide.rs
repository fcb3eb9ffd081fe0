//! One exchange for all nodes of a Slurm job: a daemon on each, at the same path, fed by the one here.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};

use super::command_error::CommandError;
use super::daemon_program;
use super::need::NeedArg;
use super::profile::ProfileArg;
use crate::api::{Job, Serving};
use crate::client::Client;
use crate::env::Env;
use crate::error::Exit;
use crate::paths;

/// The daemon that serves this whole job on this node, if one does.
pub(super) fn running(env: &Env) -> Option<Client> {
    if env.path("WANDB_CRED_SOCKET").is_some() {
        return None;
    }
    let socket = paths::job_socket(&job(env)?, None);
    paths::check_private(socket.parent()?).ok()?;
    let client = Client::at(socket);
    client.accepts().then_some(client)
}

/// Whether this process is in a command of `exec --job` already.
pub(super) fn is_within(env: &Env) -> bool {
    let socket = env.path("WANDB_CRED_SOCKET").filter(|socket| paths::is_job_socket(socket));
    socket.is_some_and(|socket| Client::at(socket).accepts())
}

/// Starts feeding the nodes of this job, until this process (and what it becomes) ends. Returns once each has a token.
pub(super) fn begin(profile: &ProfileArg, need: &NeedArg, env: &Env) -> Result<Serving, CommandError> {
    let job = job(env).ok_or_else(|| {
        let message = "SLURM_JOB_ID is not set, and --job is for the inside of a Slurm job";
        CommandError::new(Exit::Unavailable, message).hint("leave out --job, or run it with sbatch or salloc")
    })?;
    let mut arguments = vec!["feed".to_owned(), "--job".to_owned(), job, "--background".to_owned()];
    arguments.extend(["--lifetime-of".to_owned(), process::id().to_string()]);
    arguments.extend(profile.arguments().chain(need.arguments()));
    let (line, mut starter) = first_line(&arguments, Stdio::inherit())?;
    // It has started what goes on, and is to be no child of the command.
    let _ = starter.wait();
    serde_json::from_str(&line)
        .map_err(|_| CommandError::new(Exit::Software, "the feed did not say what it serves"))
}

/// Runs this program with these arguments, and waits for its first line. On `errors` it has said itself why there is none.
pub(super) fn first_line(arguments: &[String], errors: Stdio) -> Result<(String, Child), CommandError> {
    let failed = |error| CommandError::new(Exit::System, format!("cannot start the feed: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line.ends_with('\n') {
        return Ok((line, child));
    }
    Err(daemon_program::failed("the feed ended at once", child.wait().map_err(failed)?))
}

/// The Slurm job that this process is in.
pub(super) fn job(env: &Env) -> Option<String> {
    env.var("SLURM_JOB_ID").filter(|job| is_job(job))
}

/// A job's number becomes part of a path.
pub(super) fn is_job(job: &str) -> bool {
    !job.is_empty() && job.len() <= 20 && job.bytes().all(|byte| byte.is_ascii_digit())
}

impl From<Serving> for Job {
    fn from(serving: Serving) -> Self {
        let Serving { profile, base_url, identity_token_file, credentials_file, .. } = serving;
        Self {
            profile,
            base_url,
            identity_token_file: Some(identity_token_file),
            credentials_file: Some(credentials_file),
            proxy: None,
            pending: false,
        }
    }
}

/// Finds `name` as a shell does.
pub(super) fn in_path(name: &str, env: &Env) -> Option<PathBuf> {
    let path = env.path("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}
