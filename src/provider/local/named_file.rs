//! The file that `WANDB_IDENTITY_TOKEN_FILE` names: a bare JWT, or what `wandb login sso` writes.

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::paths::{self, PROFILES, SdkEnvironment};
use crate::read_file;

/// The file that the environment names, unless it is one that we write ourselves: a daemon started from a shell
/// that was set up for the SDK would read its own output and never renew it.
pub(super) fn path(env: &Env) -> Result<PathBuf, String> {
    let path = PathBuf::from(env.var(VARIABLE).ok_or_else(|| format!("{VARIABLE} is not set"))?);
    let own = paths::socket(env).ok().and_then(|socket| Some(socket.parent()?.join(PROFILES)));
    // Within time: it may be on a mount whose server is gone.
    let real = |path: &Path| {
        let owned = path.to_owned();
        let real = read_file::within_time(path, move || Ok(owned.canonicalize().ok()));
        real.ok().flatten().unwrap_or_else(|| path.to_owned())
    };
    let ours = own.is_some_and(|own| path.starts_with(&own) || real(&path).starts_with(real(&own)));
    // Or one of another daemon of ours, which may have ended.
    if ours || SdkEnvironment::of(env).is_some() {
        return Err(format!("{VARIABLE} names {}, which wandb-cred writes itself", path.display()));
    }
    Ok(path)
}

pub(super) const VARIABLE: &str = "WANDB_IDENTITY_TOKEN_FILE";
