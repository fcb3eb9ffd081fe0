//! Asks for the SDK files, and says which variables make an unmodified W&B SDK use them.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::command_error::CommandError;
use super::profile::ProfilesArg;
use crate::api::{Job, JobRequest};
use crate::client::{self, Client};
use crate::env::Env;
use crate::error::{Exit, Reason};

/// Registers the process `pid`: its files exist now, and stay fresh until it ends.
pub(super) fn register(
    client: &Client,
    profiles: &ProfilesArg,
    pid: u32,
    wait: bool,
    env: &Env,
) -> Result<Job, client::Error> {
    let request = JobRequest { pid: Some(pid), wait, ..request(profiles, env) };
    client.post("/v1/jobs", &request, JOB_TIMEOUT)
}

/// Registers this process, and what it becomes. The connection, if there is one, must be inherited: the daemon does not see
/// this process, and takes the connection's end for its end.
pub(super) fn register_own(
    client: &Client,
    profiles: &ProfilesArg,
    wait: bool,
    env: &Env,
) -> Result<(Job, Option<UnixStream>), client::Error> {
    match register(client, profiles, std::process::id(), wait, env) {
        Err(client::Error::Problem(problem)) if problem.reason == Some(Reason::ProcessUnseen) => {
            let request = JobRequest { hold: true, wait, ..request(profiles, env) };
            let (job, connection) = client.post_and_hold("/v1/jobs", &request, JOB_TIMEOUT)?;
            Ok((job, Some(connection)))
        }
        other => Ok((other?, None)),
    }
}

fn request(profiles: &ProfilesArg, env: &Env) -> JobRequest {
    let mut profiles = profiles.names(env);
    let profile = if profiles.len() == 1 { profiles.pop() } else { None };
    JobRequest { profile, profiles, pid: None, hold: false, wait: true }
}

/// The variables to set.
pub(super) fn variables(job: &Job) -> Result<[(&'static str, String); 4], CommandError> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            let message = format!("the path {} is not Unicode, which the W&B SDK requires", path.display());
            CommandError::new(Exit::Configuration, message)
                .hint("set WANDB_CRED_SOCKET to a path in another folder")
        })
    };
    Ok([
        ("WANDB_IDENTITY_TOKEN_FILE", text(&job.identity_token_file)?),
        ("WANDB_CREDENTIALS_FILE", text(&job.credentials_file)?),
        ("WANDB_BASE_URL", job.base_url.clone()),
        // So that a wandb-cred inside the job asks for the same profile, or the same ones.
        ("WANDB_CRED_PROFILE", job.profile.clone()),
    ])
}

/// The SDK refuses an API key beside an identity token file.
pub(super) const REMOVED_VARIABLE: &str = "WANDB_API_KEY";

/// The answer may have to wait for the first exchange.
const JOB_TIMEOUT: Duration = Duration::from_secs(65);
