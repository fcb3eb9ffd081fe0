//! `file`: a JWT that somebody else keeps fresh in a file, such as a Kubernetes projected token.
//!
//! The path is opened again for each attempt, so a symlink swap (`..data`) is followed, and a half-written
//! file is a transient error: the next attempt reads the whole one.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::named_file;
use crate::env::Env;
use crate::error::{Error, Kind};
use crate::provider::detect::Detect;
use crate::provider::files::read_off_thread;
use crate::provider::rotation::Rotation;
use crate::provider::settings::{expand_home, require_absolute};
use crate::provider::source::{Context, Provider};
use crate::read_file::off_thread;
use crate::token::IdentityToken;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Absolute, or beginning with `~/`.
    pub path: PathBuf,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<File, Error> {
        let path = expand_home(&self.path, &cx.env);
        require_absolute("file", "path", &path)?;
        Ok(File { path, rotation: Rotation::default(), cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        named_file::path(env).map(|path| format!("{} names {}", named_file::VARIABLE, path.display()))
    }

    fn detected(env: &Env) -> Self {
        Self { path: env.var(named_file::VARIABLE).unwrap_or_default().into() }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("path", self.path.display().to_string())]
    }
}

pub struct File {
    path: PathBuf,
    rotation: Rotation,
    cx: Context,
}

#[async_trait]
impl Provider for File {
    fn name(&self) -> &'static str {
        "file"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let raw = read_off_thread(&self.path).await?;
        match self.cx.parse(&raw, self.path.display()) {
            Err(error) if error.kind == Kind::Rejected && self.changed_lately().await => {
                Err(error.kind(Kind::Transient).hint("it changed a moment ago and may be half-written"))
            }
            parsed => Ok(self.rotation.note(parsed?, &self.path).await),
        }
    }

    async fn restored(&self, token: IdentityToken) -> IdentityToken {
        self.rotation.note(token, &self.path).await
    }
}

impl File {
    /// Whether somebody may still be writing it.
    async fn changed_lately(&self) -> bool {
        let (path, now) = (self.path.clone(), self.cx.clock.now().wall);
        let owned = path.clone();
        let meta = off_thread(&path, move || Ok(owned.metadata().and_then(|meta| meta.modified()).ok()));
        let changed = meta.await.ok().flatten().and_then(|at| jiff::Timestamp::try_from(at).ok());
        changed.is_some_and(|at| now.duration_since(at).unsigned_abs() < YOUNG)
    }
}

/// Malformed content is blamed on its source only once the file is older.
const YOUNG: Duration = Duration::from_secs(5);
