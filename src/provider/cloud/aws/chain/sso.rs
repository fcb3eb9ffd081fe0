//! Profiles of IAM Identity Center: `aws sso login` keeps an access token in `~/.aws/sso/cache`, and AWS gives the credentials of
//! a role for it. Shapes as botocore 1.40 has them (`credentials.py`, `SSOProvider`; `tokens.py`).
//!
//! The cache is read and never written. Its refresh token belongs to the AWS CLI: of two that redeem it, one would be signed
//! out. So when the access token is over, a person or the CLI must act; the role's credentials live on meanwhile.

use std::path::PathBuf;

use reqwest::Method;
use serde::Deserialize;
use sha1::{Digest as _, Sha1};
use url::Url;

use super::{Chain, Credentials, Profile};
use crate::error::{Error, FileFault, Kind, Reason};
use crate::http::Destination;
use crate::provider::answer;
use crate::read_file::{self, off_thread};
use crate::token::Secret;

/// Whether the profile takes its credentials from IAM Identity Center.
pub(super) fn signs_in(profile: &Profile) -> bool {
    // With a session alone, the CLI has a bearer token for it, and no role.
    ["sso_account_id", "sso_role_name"].iter().any(|key| profile.setting(key).is_some())
}

/// Where to ask, and for what.
struct Role {
    account: String,
    role: String,
    region: String,
    /// The file of the token, by the name of the session or by the address where one signs in.
    cache: PathBuf,
    /// The command that signs in.
    login: String,
}

impl Chain {
    /// The credentials of the role that the profile names.
    pub(super) async fn of_sso(&self, profile: &Profile) -> Result<Credentials, Error> {
        let role = self.sso_role(profile).await?;
        let token = self.sso_token(&role).await?;
        let mut url = self.sso_endpoint(&role.region)?;
        url.path_segments_mut()
            .map_err(|()| Error::setting("sso_region", "the address of IAM Identity Center takes no path"))?
            .pop_if_empty()
            .extend(["federation", "credentials"]);
        url.query_pairs_mut().append_pair("role_name", &role.role).append_pair("account_id", &role.account);
        let http = &self.cx.http;
        let request =
            http.request(Destination::Network, Method::GET, url).header(BEARER, token.expose().as_str());
        let answer = http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        match answer.status {
            200 => {}
            401 => return Err(sign_in(format!("{WHO} does not take the token any more"), &role)),
            _ => {
                let said = serde_json::from_slice::<Said>(&answer.body).ok().map(|said| said.message);
                let error = answer::refusal(WHO, &answer, said.as_deref());
                return Err(match error.kind {
                    Kind::Rejected | Kind::Misconfigured => error.kind(Kind::Rejected).hint(format_args!(
                        "is role {} of account {} assigned to you? See: aws sso list-account-roles",
                        role.role, role.account
                    )),
                    _ => error,
                });
            }
        }
        let given: Given = answer::json(WHO, &answer)?;
        let given = given.role_credentials;
        let expires = jiff::Timestamp::from_millisecond(given.expiration).map_err(|_| {
            answer::unreadable(
                WHO,
                Some("expiration"),
                format!("{WHO} answered with an expiry that is no time"),
            )
        })?;
        Ok(Credentials {
            id: given.access_key_id,
            secret: Secret::new(given.secret_access_key),
            session: Some(Secret::new(given.session_token)),
            expires: Some(expires),
            source: "of a role by IAM Identity Center",
            renewable: true,
        })
    }

    async fn sso_role(&self, profile: &Profile) -> Result<Role, Error> {
        let name = &profile.name;
        let missing = |key: &str, place: &str| {
            Error::setting(
                "profile",
                format!("{place} signs in by SSO, and has no {key}; run: aws configure sso"),
            )
        };
        let of_profile = |key: &str| {
            let found = profile.setting(key).map(str::to_owned);
            found.ok_or_else(|| missing(key, &format!("the AWS profile {name}")))
        };
        let (account, role) = (of_profile("sso_account_id")?, of_profile("sso_role_name")?);
        let (key, region) = match profile.setting("sso_session") {
            Some(session) => {
                let place = format!("[sso-session {session}]");
                let found = Profile::sso_session(&self.cx.env, session).await?;
                let settings = found.ok_or_else(|| {
                    let message =
                        format!("the AWS profile {name} names {place}, which is not in the config file");
                    Error::setting("profile", message)
                })?;
                let of =
                    |key: &str| settings.setting(key).map(str::to_owned).ok_or_else(|| missing(key, &place));
                of("sso_start_url")?;
                (session.to_owned(), of("sso_region")?)
            }
            None => (of_profile("sso_start_url")?, of_profile("sso_region")?),
        };
        let home = self.cx.env.path("HOME").ok_or_else(|| {
            Error::variable("HOME", "HOME is not set, so the tokens of `aws sso login` cannot be found")
        })?;
        let name_of_file: String = Sha1::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        let cache = home.join(".aws/sso/cache").join(format!("{name_of_file}.json"));
        Ok(Role { account, role, region, cache, login: format!("aws sso login --profile {name}") })
    }

    async fn sso_token(&self, role: &Role) -> Result<Secret<String>, Error> {
        let path = role.cache.clone();
        let read = off_thread(&role.cache, move || read_file::read(&path, read_file::LIMIT)).await;
        let text = read.map_err(|error| match error.file_fault() {
            Some(FileFault::Missing) => sign_in("nobody has signed in by SSO".to_owned(), role),
            _ => error.context("the token of `aws sso login`"),
        })?;
        // Half-written at this moment, perhaps. The parser's words can quote the token.
        let cached: Cached = serde_json::from_slice(&text).map_err(|_| {
            let message = format!("{} is not what `aws sso login` writes", role.cache.display());
            let reason = Reason::File { path: role.cache.clone(), fault: FileFault::Malformed };
            Error::transient(message).because(reason)
        })?;
        if cached.expires_at.as_timestamp().is_none_or(|at| at <= self.cx.clock.now().wall) {
            return Err(sign_in("the sign-in by SSO has expired".to_owned(), role));
        }
        Ok(Secret::new(cached.access_token))
    }

    fn sso_endpoint(&self, region: &str) -> Result<Url, Error> {
        super::super::sts::endpoint(&self.cx.env, "AWS_ENDPOINT_URL_SSO", "portal.sso", region)
    }
}

fn sign_in(what: String, role: &Role) -> Error {
    let login = &role.login;
    Error::needs_login(format!(
        "{what}; run: {login} (for jobs that outlive it, use an AWS profile with credential_process = aws configure \
         export-credentials, whose AWS CLI renews the sign-in)"
    ))
}

/// The file in the cache. What is not used may be anything.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    access_token: String,
    expires_at: ExpiresAt,
}

/// RFC 3339; older CLIs wrote `2020-06-17T10:02:08UTC`.
#[derive(Deserialize)]
struct ExpiresAt(String);

impl ExpiresAt {
    fn as_timestamp(&self) -> Option<jiff::Timestamp> {
        self.0.replace("UTC", "Z").parse().ok()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    role_credentials: GivenCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    /// Milliseconds.
    expiration: i64,
}

#[derive(Deserialize)]
struct Said {
    message: String,
}

const WHO: &str = "AWS IAM Identity Center";
const BEARER: &str = "x-amz-sso_bearer_token";
const MAX_ANSWER: usize = 64 * 1024;
