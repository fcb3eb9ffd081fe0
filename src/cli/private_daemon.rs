//! `exec --private`: a daemon that nobody shares. It ends with this process, and so with the command that `exec` becomes.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;

use super::command_error::CommandError;
use super::on_demand;
use crate::client::Client;
use crate::env::Env;
use crate::error::{Error, Exit, Stage};
use crate::{output, paths};

/// Starts it in the first folder that can be used.
pub(super) fn start(env: &Env) -> Result<Client, CommandError> {
    run(&folder(env)?, &[], env)
}

/// A new folder for one, in the first place that can be used.
pub(super) fn folder(env: &Env) -> Result<PathBuf, CommandError> {
    let mut unusable = Vec::new();
    for base in paths::bases(env) {
        let usable = base.prepare().and_then(|()| paths::check_socket_length(&base.path.join(LONGEST)));
        if let Err(error) = usable {
            unusable.push(error.message);
            continue;
        }
        remove_leftovers(&base.path);
        return create_folder(&base.path);
    }
    Err(on_demand::no_folder(unusable))
}

/// Starts it in this folder, which it removes when it ends.
pub(super) fn run(folder: &Path, more: &[&str], env: &Env) -> Result<Client, CommandError> {
    let socket = paths::socket_in(folder);
    let pid = process::id().to_string();
    let mut arguments = vec!["--lifetime-of", &pid];
    arguments.extend(more);
    // Its log goes where the command's own output goes, and a person there reads our errors, not its log.
    if output::is_stderr_a_terminal() && env.var("WANDB_CRED_LOG").is_none() {
        arguments.extend(["--log-level", "off"]);
    }
    let started = on_demand::run_daemon(&socket, &arguments, env);
    if started.is_err() {
        let _ = std::fs::remove_dir_all(folder);
    }
    started.map(|()| Client::at(socket))
}

fn create_folder(base: &Path) -> Result<PathBuf, CommandError> {
    let pid = process::id();
    // The number may be taken: by a job in another container that shares the folder, or by a leftover.
    for attempt in 0..100 {
        let folder =
            base.join(if attempt == 0 { format!("exec-{pid}") } else { format!("exec-{pid}-{attempt}") });
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(Stage::Files, &folder, &error).into()),
        }
    }
    Err(CommandError::new(Exit::TryLater, format!("too many exec-{pid} folders in {}", base.display())))
}

/// Removes the folders, and so the tokens, of private daemons that were killed before they could do it.
///
/// A daemon is dead if its socket exists, refuses connections, and nobody holds its lock: one that is starting has bound
/// its socket a moment before it listens. Process numbers would not do, since containers that share the folder do not see
/// each other's processes.
fn remove_leftovers(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for folder in entries.flatten() {
        let path = folder.path();
        if folder.file_name().to_string_lossy().starts_with("exec-")
            && refuses(&paths::socket_in(&path))
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

/// The longest path below a base: with the largest process number of Linux.
const LONGEST: &str = "exec-4194304-99/wandb-cred.sock";
