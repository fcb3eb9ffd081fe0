//! Where things are: configuration, runtime folder, socket, SDK files. See the table in ARCHITECTURE.md.
//!
//! The command and the daemon both ask here, so they cannot disagree. Finding a place never creates it;
//! [`private_dir`] does, and refuses a folder that others could touch.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::env::Env;

// The command asks for the socket alone: what the daemon reads and keeps is the daemon's business.
mod places;
pub use places::{Places, state_dir};

/// The socket alone: all that reading a token needs.
pub fn socket(env: &Env) -> Result<PathBuf, Error> {
    if let Some(path) = env.var("WANDB_CRED_SOCKET") {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err(Error::Relative { variable: "WANDB_CRED_SOCKET", path });
        }
        return Ok(path);
    }
    Ok(runtime_base(env).join(SOCKET_NAME))
}

/// `$XDG_RUNTIME_DIR/wandb-cred`; where that is unset (batch jobs, cron: systemd/systemd#3355)
/// `/run/user/UID/wandb-cred` if that folder is ours, else `$TMPDIR/wandb-cred-UID`.
fn runtime_base(env: &Env) -> PathBuf {
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

/// Makes `dir` (and what is above it) or accepts it as it is, if it is a real folder of ours with mode 0700.
///
/// The mode is given to `mkdir` itself, so there is no moment in which the folder is open to others.
pub fn private_dir(dir: &Path) -> Result<(), Error> {
    let at = |source| Error::Io { path: dir.to_owned(), source };
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(at(error));
    }
    check_private(dir)
}

/// Whether `dir` is a real folder (no symlink), ours, and closed to everybody else.
pub fn check_private(dir: &Path) -> Result<(), Error> {
    let meta = dir.symlink_metadata().map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    let uid = rustix::process::geteuid().as_raw();
    if !meta.is_dir() {
        return Err(Error::NotADirectory { path: dir.to_owned() });
    }
    if meta.uid() != uid {
        return Err(Error::Foreign { path: dir.to_owned(), owner: meta.uid(), uid });
    }
    if meta.mode() & 0o077 != 0 {
        return Err(Error::Loose { path: dir.to_owned(), mode: meta.mode() & 0o7777 });
    }
    Ok(())
}

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither HOME nor an explicit path says where the configuration is.
    #[error("HOME is not set; set it, or name the configuration file in WANDB_CRED_CONFIG")]
    NoHome,
    /// A path from the environment would mean something else in every folder.
    #[error("{variable} must be an absolute path, not {}", path.display())]
    Relative { variable: &'static str, path: PathBuf },
    #[error("{} is not a folder (a symlink is refused too); remove it, or set WANDB_CRED_SOCKET to a path in another folder", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} belongs to uid {owner}, not to us (uid {uid}); set WANDB_CRED_SOCKET to a path in a folder of your own", path.display())]
    Foreign { path: PathBuf, owner: u32, uid: u32 },
    #[error("{} has mode {mode:04o}, so others could reach the tokens in it; run: chmod 700 {}", path.display(), path.display())]
    Loose { path: PathBuf, mode: u32 },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

const SOCKET_NAME: &str = "wandb-cred.sock";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_follows_the_environment() {
        let at = |vars: &[(&str, &str)]| socket(&Env::fixed(vars.iter().copied()));
        assert_eq!(at(&[("WANDB_CRED_SOCKET", "/a/s")]).expect("absolute"), Path::new("/a/s"));
        assert!(matches!(at(&[("WANDB_CRED_SOCKET", "s")]), Err(Error::Relative { .. })));
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
        let refused = private_dir(&dir).expect_err("loose").to_string();
        assert!(refused.contains("chmod 700"), "{refused}");
    }

    #[test]
    fn a_symlink_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(temp.path(), &link).expect("symlink");
        assert!(matches!(private_dir(&link), Err(Error::NotADirectory { .. })));
    }
}
