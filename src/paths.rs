//! Where things are: configuration, runtime folder, socket, SDK files.
//!
//! The command and the daemon both ask here, so they cannot disagree. Finding a place never creates it;
//! [`private_dir`] does, and refuses a folder that others can reach.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::{Error, FileFault, Kind, Reason, Result, Stage};

mod places;

pub use places::{Places, home_state_dir, state_dir};

/// The socket alone, which is all that the command needs.
pub fn socket(env: &Env) -> Result<PathBuf> {
    if let Some(path) = env.var(SOCKET_VARIABLE).map(PathBuf::from) {
        if !path.is_absolute() {
            let message = format!("{SOCKET_VARIABLE} must be an absolute path, not {}", path.display());
            return Err(bad_variable(SOCKET_VARIABLE, message));
        }
        return Ok(path);
    }
    Ok(runtime_base(env).join(SOCKET_NAME))
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
    if let Some(dir) = env.var("XDG_RUNTIME_DIR") {
        return Path::new(&dir).join("wandb-cred");
    }
    let uid = rustix::process::geteuid().as_raw();
    let run = PathBuf::from(format!("/run/user/{uid}"));
    if run.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == uid) {
        return run.join("wandb-cred");
    }
    let temp = env.var("TMPDIR").unwrap_or_else(|| "/tmp".to_owned());
    Path::new(&temp).join(format!("wandb-cred-{uid}"))
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

/// HOME is missing, and nothing else says where the user's files are.
pub fn no_home() -> Error {
    bad_variable("HOME", "HOME is not set; set it, or name the configuration file in WANDB_CRED_CONFIG")
}

fn bad_variable(name: &str, message: impl Into<String>) -> Error {
    let reason = Reason::Variable { name: name.to_owned() };
    Error::new(Stage::Configuration, Kind::Misconfigured, reason, message)
}

const SOCKET_VARIABLE: &str = "WANDB_CRED_SOCKET";
const SOCKET_UID_VARIABLE: &str = "WANDB_CRED_SOCKET_UID";
const SOCKET_NAME: &str = "wandb-cred.sock";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_follows_the_environment() {
        let at = |vars: &[(&str, &str)]| socket(&Env::fixed(vars.iter().copied()));
        assert_eq!(at(&[("WANDB_CRED_SOCKET", "/a/s")]).expect("absolute"), Path::new("/a/s"));
        let refused = at(&[("WANDB_CRED_SOCKET", "s")]).expect_err("relative");
        assert_eq!(refused.reason, Reason::Variable { name: "WANDB_CRED_SOCKET".to_owned() });
        let xdg = at(&[("XDG_RUNTIME_DIR", "/run/u")]).expect("found");
        assert_eq!(xdg, Path::new("/run/u/wandb-cred/wandb-cred.sock"));
    }

    #[test]
    fn a_private_dir_is_made_closed_and_a_loose_one_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = temp.path().join("a/b");
        private_dir(&dir).expect("made");
        assert_eq!(dir.metadata().expect("there").mode() & 0o777, 0o700);
        private_dir(&dir).expect("accepted when it exists");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o750)).expect("chmod");
        let refused = private_dir(&dir).expect_err("loose");
        assert_eq!(refused.file_fault(), Some(&FileFault::Loose { mode: 0o750 }));
        assert!(refused.message.contains("chmod 700"), "{refused}");
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
