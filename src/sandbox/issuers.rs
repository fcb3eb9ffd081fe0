//! The keys of the trusted issuers, found by discovery as a W&B server does.
//!
//! The sandbox has its own keys at hand. Those of another issuer are fetched once, and again for an unknown key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::http::{Destination, Http};

pub(super) struct Issuers {
    http: Http,
    trusted: Vec<String>,
    cache: Mutex<HashMap<String, Arc<JwkSet>>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    pub(super) fn new(http: Http, trusted: Vec<String>) -> Self {
        Self { http, trusted, cache: Mutex::default() }
    }

    pub(super) fn trusts(&self, issuer: &str) -> bool {
        self.trusted.iter().any(|trusted| trusted == issuer)
    }

    /// The key `kid` of a trusted issuer; without `kid`, its only key.
    pub(super) async fn key(&self, issuer: &str, kid: Option<&str>) -> Result<Jwk, String> {
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(issuer).cloned();
        if let Some(key) = cached.and_then(|keys| find(&keys, kid)) {
            return Ok(key);
        }
        let keys = Arc::new(self.fetch(issuer).await?);
        let key = find(&keys, kid);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(issuer.to_owned(), keys);
        key.ok_or_else(|| format!("{issuer} does not publish such a key"))
    }

    async fn fetch(&self, issuer: &str) -> Result<JwkSet, String> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Discovery = self.get(&url).await?;
        if found.issuer != issuer {
            return Err(format!("{url} names another issuer: {}", found.issuer));
        }
        self.get(&found.jwks_uri).await
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let parsed = Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
        let request = self.http.request(Destination::Network, Method::GET, parsed);
        let answer = self
            .http
            .send(Destination::Network, request, TIMEOUT, MAX_DOCUMENT)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("{url} answered with status {}", answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("{url}: {error}"))
    }
}

/// The key named `kid`; without a name, the only key.
pub(super) fn find(keys: &JwkSet, kid: Option<&str>) -> Option<Jwk> {
    match kid {
        Some(kid) => keys.find(kid).cloned(),
        None => match keys.keys.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        },
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);

const MAX_DOCUMENT: usize = 256 * 1024;
