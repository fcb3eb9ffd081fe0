//! A private daemon, if no other answers. It ends with this process, and so with the command that `exec` becomes.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

use super::command_error::CommandError;
use super::{daemon_program, job_wide};
use crate::client::Client;
use crate::env::Env;
use crate::error::{Error, Exit, Stage};
use crate::paths;

/// The daemon that answers; if there is none, a private one, at a socket of its own.
pub(super) fn find_or_start(env: &Env) -> Result<Client, CommandError> {
    if let Some(client) = job_wide::running(env) {
        return Ok(client);
    }
    let client = Client::find(env)?;
    if client.is_running(CONNECT_TIMEOUT) {
        return Ok(client);
    }
    start(client.socket(), env).map(Client::at)
}

/// Starts a daemon that ends with this process, and gives its socket.
fn start(missing: &Path, env: &Env) -> Result<PathBuf, CommandError> {
    let runtime = &paths::private_base(env, missing);
    let chosen = env.path("WANDB_CRED_SOCKET").is_some() && missing.parent() == Some(runtime);
    if !chosen || !runtime.exists() {
        paths::private_dir(runtime)?;
    }
    remove_leftovers(runtime);
    let folder = create_folder(runtime)?;
    let socket = paths::private_socket(&folder);
    let program = daemon_program::find(env);
    let status = process::Command::new(&program)
        .args(["run", "--background", "--lifetime-of", &process::id().to_string()])
        .env("WANDB_CRED_SOCKET", &socket)
        // Its log goes where the command's errors go, so it logs only problems.
        .env("WANDB_CRED_LOG", env.var("WANDB_CRED_LOG").unwrap_or_else(|| "warn".to_owned()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let error = match status {
        Ok(status) if status.success() => return Ok(socket),
        Ok(status) => daemon_program::failed("wandb-credd ended at once", status),
        Err(error) => daemon_program::not_started(&program, &error)
            .because(&format!("no daemon answers at {}", missing.display())),
    };
    let _ = std::fs::remove_dir_all(folder);
    Err(error)
}

fn create_folder(runtime: &Path) -> Result<PathBuf, CommandError> {
    let pid = process::id();
    // The number may be taken: by a job in another container that shares the folder, or by a leftover.
    for attempt in 0..100 {
        let folder =
            runtime.join(if attempt == 0 { format!("exec-{pid}") } else { format!("exec-{pid}-{attempt}") });
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(Stage::Files, &folder, &error).into()),
        }
    }
    Err(CommandError::new(Exit::TryLater, format!("too many exec-{pid} folders in {}", runtime.display())))
}

/// Removes the folders, and so the tokens, of private daemons that were killed before they could do it.
///
/// A daemon is dead if its socket exists, refuses connections, and nobody holds its lock: one that is starting has bound
/// its socket a moment before it listens. Process numbers would not do, since containers that share the folder do not see
/// each other's processes.
fn remove_leftovers(runtime: &Path) {
    let Ok(entries) = std::fs::read_dir(runtime) else { return };
    for folder in entries.flatten() {
        let path = folder.path();
        if folder.file_name().to_string_lossy().starts_with("exec-")
            && refuses(&paths::private_socket(&path))
            && let Some(_lock) = unheld(&path.join(paths::LOCK))
        {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

fn refuses(socket: &Path) -> bool {
    UnixStream::connect(socket).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The lock, if no daemon holds it. Every daemon makes it before its socket; without one, there never was a daemon here.
fn unheld(lock: &Path) -> Option<Option<std::fs::File>> {
    match std::fs::File::open(lock) {
        Ok(file) => file.try_lock().is_ok().then_some(Some(file)),
        Err(error) => (error.kind() == ErrorKind::NotFound).then_some(None),
    }
}

/// To find out whether a daemon is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
