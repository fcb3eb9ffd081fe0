//! The variables that `exec` and `env` set for a W&B SDK, as a later program finds them: its job may have ended.

use std::path::{Path, PathBuf};

use crate::env::Env;

/// What `exec` or `env` of an earlier job left in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdkEnvironment {
    pub identity_token: PathBuf,
}

impl SdkEnvironment {
    /// `None` if the SDK's variables are not set, or were set by somebody else. Ours name two files side by side, in a
    /// profile's folder.
    pub fn of(env: &Env) -> Option<Self> {
        let identity_token = env.path(IDENTITY_TOKEN_FILE)?;
        let folder = identity_token.parent()?;
        let ours = identity_token.file_name()? == IDENTITY_TOKEN
            && folder.parent()?.file_name()? == PROFILES
            && env.path(CREDENTIALS_FILE)? == folder.join(CREDENTIALS);
        ours.then_some(Self { identity_token })
    }

    /// Whether the files are gone, and so the daemon that wrote them.
    pub fn is_stale(&self) -> bool {
        !self.identity_token.exists()
    }

    /// The profile that the files belong to.
    pub fn profile(&self) -> Option<&str> {
        self.identity_token.parent().and_then(Path::file_name)?.to_str()
    }
}

/// The SDK's own (wandb 0.19.11 and later).
pub const IDENTITY_TOKEN_FILE: &str = "WANDB_IDENTITY_TOKEN_FILE";
pub const CREDENTIALS_FILE: &str = "WANDB_CREDENTIALS_FILE";

/// The names of the files.
pub const IDENTITY_TOKEN: &str = "identity-token";
pub const CREDENTIALS: &str = "credentials.json";
/// The folder of the profiles' folders, next to the socket.
pub const PROFILES: &str = "profiles";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_set_is_ours() {
        let at = |identity: &str, credentials: &str| {
            SdkEnvironment::of(&Env::fixed([
                (IDENTITY_TOKEN_FILE, identity),
                (CREDENTIALS_FILE, credentials),
            ]))
        };
        let ours = at("/run/x/profiles/work/identity-token", "/run/x/profiles/work/credentials.json");
        let ours = ours.expect("as exec sets them");
        assert_eq!((ours.profile(), ours.is_stale()), (Some("work"), true));
        assert_eq!(at("/run/x/profiles/work/identity-token", "/home/a/.config/wandb/credentials.json"), None);
        assert_eq!(at("/var/run/secrets/identity-token", "/var/run/secrets/credentials.json"), None);
        assert_eq!(at("/run/x/profiles/work/jwt", "/run/x/profiles/work/credentials.json"), None);
    }
}
