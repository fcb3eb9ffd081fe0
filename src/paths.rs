//! Where things are: configuration, runtime folder, socket, SDK files.
//!
//! The command and the daemon both ask here, so they cannot disagree. Finding a place never creates it;
//! [`private_dir`] does, and refuses a folder that others can reach.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::{Error, FileFault, Kind, Reason, Result, Stage};

mod identity;
mod on_demand;
mod places;
mod sdk_environment;

pub use identity::VARIABLES as IDENTITY_VARIABLES;
pub use on_demand::{
    Base, Key, OnDemand, SchedulerJob, bases, is_on_demand, scheduler_job, start_lock, starts_with_others,
};
pub use places::{Places, home_state_dir, state_dir};
pub use sdk_environment::{
    CREDENTIALS, CREDENTIALS_FILE, IDENTITY_TOKEN, IDENTITY_TOKEN_FILE, PROFILES, SdkEnvironment,
};

/// The socket alone, which is all that the command needs.
pub fn socket(env: &Env) -> Result<PathBuf> {
    let path = match env.path(SOCKET_VARIABLE) {
        Some(path) if path.is_relative() => {
            let message = format!("{SOCKET_VARIABLE} must be an absolute path, not {}", path.display());
            return Err(bad_variable(SOCKET_VARIABLE, message));
        }
        Some(path) => path,
        None => runtime_base(env).join(SOCKET_NAME),
    };
    check_socket_length(&path)?;
    Ok(path)
}

/// The variable that decides where the socket is, if one does.
pub fn socket_variable(env: &Env) -> Option<&'static str> {
    let runtime = env.path("XDG_RUNTIME_DIR").is_some_and(|dir| dir.is_absolute());
    match (env.path(SOCKET_VARIABLE), runtime, env.path("TMPDIR")) {
        (Some(_), _, _) => Some(SOCKET_VARIABLE),
        (None, true, _) => Some("XDG_RUNTIME_DIR"),
        (None, false, Some(temp)) if runtime_base(env).starts_with(&temp) => Some("TMPDIR"),
        _ => None,
    }
}

/// Refuses a path that is too long for a socket, with words that help.
pub fn check_socket_length(path: &Path) -> Result<()> {
    let length = path.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    let message = format!(
        "{} is {length} bytes long, and a socket's path can have {MAX_SOCKET_PATH}; set {SOCKET_VARIABLE} to a shorter one",
        path.display()
    );
    Err(bad_variable(SOCKET_VARIABLE, message))
}

/// The user beside this one and root whose daemon the command may ask, if the environment names one.
pub fn socket_uid(env: &Env) -> Result<Option<u32>> {
    let Some(text) = env.var(SOCKET_UID_VARIABLE) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let message = format!("{SOCKET_UID_VARIABLE} must be a user's number, as `id -u` prints it");
        bad_variable(SOCKET_UID_VARIABLE, message)
    })
}

/// `$XDG_RUNTIME_DIR/wandb-cred`; if that is unset (batch jobs, cron: systemd/systemd#3355)
/// `/run/user/UID/wandb-cred` if that folder is ours, else `$TMPDIR/wandb-cred-UID`.
pub fn runtime_base(env: &Env) -> PathBuf {
    // The specification says that a relative path is to be ignored.
    if let Some(dir) = env.path("XDG_RUNTIME_DIR").filter(|dir| dir.is_absolute()) {
        return dir.join("wandb-cred");
    }
    let uid = rustix::process::geteuid().as_raw();
    let run = PathBuf::from(format!("/run/user/{uid}"));
    if run.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == uid) {
        return run.join("wandb-cred");
    }
    temp_base(env)
}

/// `$TMPDIR/wandb-cred-UID`.
fn temp_base(env: &Env) -> PathBuf {
    let temp = env.path("TMPDIR").filter(|dir| dir.is_absolute()).unwrap_or_else(|| "/tmp".into());
    temp.join(format!("wandb-cred-{}", rustix::process::geteuid().as_raw()))
}

/// The socket of the daemons that serve one job of a batch system: the same on all of its nodes. Within the job, a process
/// may have daemons of its own.
pub fn job_socket(job: &str, process: Option<u32>) -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let process = process.map(|pid| format!("-{pid}")).unwrap_or_default();
    PathBuf::from(format!("/tmp/wandb-cred-{uid}/{JOB_FOLDER}{job}{process}/{SOCKET_NAME}"))
}

/// Whether `socket` is that of daemons which serve a job.
pub fn is_job_socket(socket: &Path) -> bool {
    let folder = socket.parent().and_then(Path::file_name);
    folder.is_some_and(|name| name.to_string_lossy().starts_with(JOB_FOLDER))
}

/// The socket of a daemon that has `folder` for its own.
pub fn socket_in(folder: &Path) -> PathBuf {
    folder.join(SOCKET_NAME)
}

/// Creates `dir` (and what is above it), or accepts one that exists if it is a real folder of ours with mode 0700.
///
/// The mode is given to `mkdir` itself, so there is no moment in which the folder is open to others.
pub fn private_dir(dir: &Path) -> Result<()> {
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(Error::io(Stage::Files, dir, &error));
    }
    check_private(dir)
}

/// Whether [`private_dir`] would do, and files could be made in the folder: asks the file system, by a folder that is removed
/// again. Its name is its own, so a daemon that starts meanwhile is not disturbed.
pub fn could_be_private(dir: &Path) -> Result<()> {
    if dir.symlink_metadata().is_ok() {
        check_private(dir)?;
    }
    let there = dir.ancestors().find(|above| above.symlink_metadata().is_ok()).unwrap_or(dir);
    let trial = tempfile::Builder::new().prefix(".wandb-cred-").tempdir_in(there);
    trial.map(drop).map_err(|error| {
        // The trial's name says nothing to anybody.
        let error = error.raw_os_error().map_or(error, std::io::Error::from_raw_os_error);
        Error::file(
            Stage::Files,
            dir,
            FileFault::Unwritable,
            format!("no folder can be made in {}: {error}", there.display()),
        )
    })
}

/// Whether `dir` is a real folder (no symlink), ours, and closed to everybody else.
pub fn check_private(dir: &Path) -> Result<()> {
    let meta = dir.symlink_metadata().map_err(|error| Error::io(Stage::Files, dir, &error))?;
    let shown = dir.display();
    let unusable = |fault, message| Err(Error::file(Stage::Files, dir, fault, message));
    let (owner, mode, uid) = (meta.uid(), meta.mode() & 0o7777, rustix::process::geteuid().as_raw());
    if !meta.is_dir() {
        return unusable(
            FileFault::NotADirectory,
            format!(
                "{shown} is not a folder (a symlink is refused too); remove it, or set {SOCKET_VARIABLE} to a path in \
                 another folder"
            ),
        );
    }
    if owner != uid {
        return unusable(
            FileFault::Foreign { owner },
            format!(
                "{shown} belongs to uid {owner}, not to you (uid {uid}); set {SOCKET_VARIABLE} to a path in a folder of \
                 your own"
            ),
        );
    }
    if mode & 0o077 != 0 {
        return unusable(
            FileFault::Loose { mode },
            format!(
                "{shown} has mode {mode:04o}, so others can reach the tokens in it; run: chmod 700 {shown}"
            ),
        );
    }
    Ok(())
}

/// Creates `dir` (and what is above it, closed) so that everybody may enter it, and nobody else may list it or write to
/// it. One that exists is accepted if it is ours and closed to writers; its mode stays as it is.
pub fn guest_dir(dir: &Path) -> Result<()> {
    let io = |error: std::io::Error| Error::io(Stage::Files, dir, &error);
    if let Some(above) = dir.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(io)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        // The mode of mkdir is subject to the umask.
        Ok(()) => return std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).map_err(io),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let meta = dir.symlink_metadata().map_err(io)?;
    let shown = dir.display();
    let (owner, mode, uid) = (meta.uid(), meta.mode() & 0o7777, rustix::process::geteuid().as_raw());
    let (fault, message) = if !meta.is_dir() {
        (FileFault::NotADirectory, format!("{shown} is not a folder (a symlink is refused too)"))
    } else if owner != uid {
        let message = format!("{shown} belongs to uid {owner}, not to you (uid {uid})");
        (FileFault::Foreign { owner }, message)
    } else if mode & 0o022 != 0 {
        let message =
            format!("{shown} has mode {mode:04o}, so others can write to it; run: chmod 711 {shown}");
        (FileFault::Loose { mode }, message)
    } else {
        return Ok(());
    };
    Err(Error::file(Stage::Files, dir, fault, message))
}

/// HOME is missing, and nothing else says where the user's files are.
pub fn no_home() -> Error {
    bad_variable("HOME", "HOME is not set; set it, or name the configuration file in WANDB_CRED_CONFIG")
}

fn bad_variable(name: &str, message: impl Into<String>) -> Error {
    let reason = Reason::Variable { name: name.to_owned() };
    Error::new(Stage::Configuration, Kind::Misconfigured, reason, message)
}

/// `sun_path` with its final zero (unix(7)).
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

const SOCKET_VARIABLE: &str = "WANDB_CRED_SOCKET";
/// Begins the name of a folder that serves one job on many nodes, beside those of other jobs.
pub const JOB_FOLDER: &str = "job-";

/// Beside the socket; held by the daemon that serves it.
pub const LOCK: &str = ".lock";

const SOCKET_UID_VARIABLE: &str = "WANDB_CRED_SOCKET_UID";
const SOCKET_NAME: &str = "wandb-cred.sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_follows_the_environment() {
        let at = |vars: &[(&str, &str)]| socket(&Env::fixed(vars.iter().copied()));
        assert_eq!(at(&[("WANDB_CRED_SOCKET", "/a/s")]).expect("absolute"), Path::new("/a/s"));
        let refused = at(&[("WANDB_CRED_SOCKET", "s")]).expect_err("relative");
        assert_eq!(refused.reason, Reason::Variable { name: "WANDB_CRED_SOCKET".to_owned() });
        let xdg = at(&[("XDG_RUNTIME_DIR", "/run/u")]).expect("found");
        assert_eq!(xdg, Path::new("/run/u/wandb-cred/wandb-cred.sock"));
        let relative = at(&[("XDG_RUNTIME_DIR", "run/u")]).expect("ignored");
        assert!(relative.is_absolute(), "{}", relative.display());
        let relative = at(&[("XDG_RUNTIME_DIR", "run/u"), ("TMPDIR", "tmp")]).expect("ignored");
        assert!(relative.is_absolute(), "{}", relative.display());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_its_length() {
        let path = |length: usize| format!("/{}", "x".repeat(length - 1));
        let at = |length| socket(&Env::fixed([("WANDB_CRED_SOCKET", path(length))]));
        assert!(at(MAX_SOCKET_PATH).is_ok());
        let refused = at(MAX_SOCKET_PATH + 1).expect_err("too long");
        assert!(refused.message.contains(&format!("{} bytes long", MAX_SOCKET_PATH + 1)), "{refused}");
    }

    #[test]
    fn a_private_dir_is_made_closed_and_a_loose_one_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = temp.path().join("a/b");
        private_dir(&dir).expect("made");
        assert_eq!(dir.metadata().expect("there").mode() & 0o777, 0o700);
        private_dir(&dir).expect("accepted when it exists");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750)).expect("chmod");
        let refused = private_dir(&dir).expect_err("loose");
        assert_eq!(refused.file_fault(), Some(&FileFault::Loose { mode: 0o750 }));
        assert!(refused.message.contains("chmod 700"), "{refused}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_found_out_before() {
        let temp = tempfile::tempdir().expect("temp dir");
        could_be_private(&temp.path().join("a/b")).expect("it can be made");
        assert_eq!(temp.path().read_dir().expect("there").count(), 0, "nothing is left");
        std::fs::write(temp.path().join("file"), "").expect("written");
        std::os::unix::fs::symlink("/nonexistent/x", temp.path().join("link")).expect("symlink");
        for below in ["file/a", "link/a"] {
            let refused = could_be_private(&temp.path().join(below)).expect_err(below);
            assert_eq!(refused.file_fault(), Some(&FileFault::Unwritable), "{refused}");
            private_dir(&temp.path().join(below)).expect_err("as the one that makes it says");
        }
    }

    #[test]
    fn a_symlink_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(temp.path(), &link).expect("symlink");
        let refused = private_dir(&link).expect_err("a symlink");
        assert_eq!(refused.file_fault(), Some(&FileFault::NotADirectory));
    }
}
