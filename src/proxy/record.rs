//! `proxy.json` beside the socket: the port, and the hashes of the keys of running jobs, so that a daemon that is started
//! again serves them on.

use serde::{Deserialize, Serialize};

use crate::json;
use crate::process::Process;
use crate::token::TokenHash;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Process numbers and start times mean nothing elsewhere.
    pub(super) system: String,
    pub(super) port: u16,
    #[serde(deserialize_with = "json::readable")]
    pub(super) keys: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    key_sha256: String,
    pub(super) profile: String,
    #[serde(flatten)]
    pub(super) process: Process,
}

impl Entry {
    pub(super) fn new(key: TokenHash, profile: &str, process: Process) -> Self {
        Self { key_sha256: key.to_string(), profile: profile.to_owned(), process }
    }

    pub(super) fn key(&self) -> Option<TokenHash> {
        TokenHash::parse(&self.key_sha256)
    }
}

pub(super) const FILE: &str = "proxy.json";
