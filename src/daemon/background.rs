//! Starts a daemon in the background, so that it is not a child of the process it serves.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::Exit;
use crate::paths::Places;

/// Starts this program again without `--background`, and returns once its socket answers.
///
/// The caller then exits, so that the daemon is not a child of the job it serves: a job that waits for all its children
/// must not wait for the daemon.
///
/// It inherits standard error and nothing else that the caller has open: a lock (`flock -n FILE wandb-cred exec ...`) or
/// a pipe must not outlive the job because of us.
pub(super) fn spawn(places: &Places) -> Result<(), Failed> {
    let socket = &places.socket;
    let failed = |error: io::Error| Failed {
        why: format!("cannot start in the background: {error}"),
        exit: Exit::System,
    };
    let program = std::env::current_exe().map_err(failed)?;
    let args = std::env::args_os().skip(1).filter(|arg| arg != "--background");
    close_fds::set_fds_cloexec(3, &[]);
    let mut child = Command::new(program)
        .args(args)
        .envs(absolute(FILE_VARIABLES))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    for _ in 0..START_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            let exit = status.code().and_then(Exit::from_code).unwrap_or(Exit::Software);
            return Err(Failed { why: "the background daemon did not start".to_owned(), exit });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let _ = child.kill();
    Err(Failed {
        why: format!("the daemon did not answer within {} s", START_TIMEOUT.as_secs()),
        exit: Exit::TryLater,
    })
}

/// The variables of `names` that hold a relative path, with the path as it is from anywhere: the daemon leaves this
/// folder, which may be about to be removed or unmounted.
fn absolute(names: [&'static str; 13]) -> impl Iterator<Item = (&'static str, PathBuf)> {
    names.into_iter().filter_map(|name| {
        let path = PathBuf::from(std::env::var_os(name).filter(|value| !value.is_empty())?);
        // AWS takes `~/` for the home folder.
        (path.is_relative() && !path.starts_with("~"))
            .then(|| Some((name, std::path::absolute(path).ok()?)))?
    })
}

/// Every variable that names a file or folder to the daemon.
const FILE_VARIABLES: [&str; 13] = [
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
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Why there is no background daemon. If it stopped by itself, it has printed the reason.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct Failed {
    why: String,
    pub(super) exit: Exit,
}

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
