//! Starts a daemon in the background, so that it is not a child of the process it serves.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::failure::Failure;
use crate::client::Client;
use crate::error::Exit;
use crate::paths::Places;

/// Starts this program again without `--background`, and returns once its socket answers.
///
/// The caller then exits, so that the daemon is not a child of the job it serves: a job that waits for all its children
/// must not wait for the daemon.
///
/// It inherits standard error and nothing else that the caller has open: a lock (`flock -n FILE wandb-cred exec ...`) or
/// a pipe must not outlive the job because of us.
pub(super) fn spawn(places: &Places) -> Result<(), Failure> {
    let socket = &places.socket;
    let failed =
        |error: io::Error| Failure::new(Exit::System, format!("cannot start in the background: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let args = std::env::args_os().skip(1).filter(|arg| arg != "--background");
    close_fds::set_fds_cloexec(3, &[]);
    let mut child = Command::new(program)
        .args(args)
        .envs(absolute(FILE_VARIABLES))
        // It may be the key of a job of another daemon, which would seem to go on as long as somebody has it.
        .env_remove("WANDB_API_KEY")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let client = Client::at(socket.clone());
    for _ in 0..START_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        // It listens before it has read its configuration, which may be wrong.
        if client.get_body("/healthz", START_TIMEOUT).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            let exit = status.code().and_then(Exit::from_code).unwrap_or(Exit::Software);
            // It has printed the reason.
            return Err(Failure::new(exit, ""));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let _ = child.kill();
    let message = format!("the daemon did not answer within {} s", START_TIMEOUT.as_secs());
    Err(Failure::new(Exit::TryLater, message))
}

/// The variables of `names` that hold a relative path, with the path as it is from anywhere: the daemon leaves this
/// folder, which may be about to be removed or unmounted.
fn absolute(names: [&'static str; 15]) -> impl Iterator<Item = (&'static str, PathBuf)> {
    names.into_iter().filter_map(|name| {
        let path = PathBuf::from(std::env::var_os(name).filter(|value| !value.is_empty())?);
        // AWS takes `~/` for the home folder.
        (path.is_relative() && !path.starts_with("~"))
            .then(|| Some((name, std::path::absolute(path).ok()?)))?
    })
}

/// Every variable that names a file or folder to the daemon.
const FILE_VARIABLES: [&str; 15] = [
    "WANDB_CRED_CONFIG",
    "WANDB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "CLOUDSDK_CONFIG",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_CONFIG_DIR",
    "KUBECONFIG",
    "BAO_CONFIG_PATH",
    "VAULT_CONFIG_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
