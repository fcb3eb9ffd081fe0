//! The process environment, read in one place so that tests can bring their own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The variables of this process, or a fixed set.
#[derive(Clone, Debug)]
pub struct Env(Option<Arc<BTreeMap<String, String>>>);

impl Env {
    pub fn system() -> Self {
        Self(None)
    }

    /// A fixed set, for tests and for judging another process' environment.
    pub fn fixed<K: Into<String>, V: Into<String>>(vars: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(Some(Arc::new(vars.into_iter().map(|(key, value)| (key.into(), value.into())).collect())))
    }

    /// The value of `name`. Unset, empty and non-Unicode are all `None`: no variable of ours means
    /// something when empty.
    pub fn var(&self, name: &str) -> Option<String> {
        let value = match &self.0 {
            Some(vars) => vars.get(name).cloned(),
            None => std::env::var(name).ok(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// The path in `name`, which need not be Unicode.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let value = match &self.0 {
            Some(vars) => vars.get(name).map(Into::into),
            None => std::env::var_os(name),
        };
        value.filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}
