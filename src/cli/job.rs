//! Asks for the SDK files, and says which variables make an unmodified W&B SDK use them.

use std::time::Duration;

use super::failure::Failure;
use super::profile;
use crate::api::{Job, JobRequest};
use crate::client::{Client, Error};
use crate::env::Env;

/// Registers the process `pid`: its files exist now, and stay fresh until it ends.
pub(super) fn register(client: &Client, choice: &profile::Choice, pid: u32, env: &Env) -> Result<Job, Error> {
    let request = JobRequest { profile: choice.name(env), pid: Some(pid) };
    client.post("/v1/jobs", &request, PATIENCE)
}

/// What to set.
pub(super) fn variables(job: &Job) -> Result<[(&'static str, String); 4], Failure> {
    let text = |path: &std::path::Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            let what = format!("{} is not Unicode, which the W&B SDK needs", path.display());
            Failure::new(super::Exit::Configuration, what)
                .next("set WANDB_CRED_SOCKET to a path in another folder")
        })
    };
    Ok([
        ("WANDB_IDENTITY_TOKEN_FILE", text(&job.identity_token_file)?),
        ("WANDB_CREDENTIALS_FILE", text(&job.credentials_file)?),
        ("WANDB_BASE_URL", job.base_url.clone()),
        // So that a wandb-cred inside asks for the same profile.
        ("WANDB_CRED_PROFILE", job.profile.clone()),
    ])
}

/// What to remove: the SDK refuses an API key beside an identity token file.
pub(super) const UNSET: &str = "WANDB_API_KEY";

/// The first exchange may be in this answer.
const PATIENCE: Duration = Duration::from_secs(65);
