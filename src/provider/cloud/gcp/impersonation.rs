//! An ID token of a service account by IAM Credentials' `generateIdToken`, for somebody who may act as that account: a
//! user (Application Default Credentials) or the account that is attached to the machine.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use super::adc::{Adc, LOGIN, User};
use crate::error::{Error, Kind};
use crate::http::{Answer, Destination};
use crate::provider::answer;
use crate::provider::settings::setting_url;
use crate::provider::source::{AUDIENCE_IGNORED, Context};
use crate::token::IdentityToken;

/// Where Google's two services are.
pub(super) struct Services {
    token: Url,
    iam: Url,
    timeout: Duration,
}

/// Who asks.
pub(super) struct Caller {
    access_token: Zeroizing<String>,
    quota_project: Option<String>,
    /// For people, to follow "give": whom the account must let act as itself.
    who: String,
}

impl Services {
    pub(super) fn new(
        token: Option<&str>,
        iam: Option<&str>,
        timeout: Option<Duration>,
    ) -> Result<Self, Error> {
        Ok(Self {
            token: setting_url("token-endpoint", token.unwrap_or(TOKEN_ENDPOINT), Destination::Network)?,
            iam: setting_url("iam-endpoint", iam.unwrap_or(IAM_ENDPOINT), Destination::Network)?,
            timeout: timeout.unwrap_or(TIMEOUT),
        })
    }

    /// The user's access token, for the refresh token in the file.
    pub(super) async fn user(&self, cx: &Context, adc: &Adc) -> Result<Caller, Error> {
        let User { client_id, client_secret, refresh_token, quota_project } = &adc.user;
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", client_id),
            ("client_secret", client_secret),
            ("refresh_token", refresh_token),
        ];
        let request = cx.http.request(Destination::Network, Method::POST, self.token.clone()).form(&form);
        let answer = cx.http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        if answer.status != 200 {
            return Err(refused_user(&answer, adc));
        }
        let Granted { access_token } = answer::json(TOKEN_SERVICE, &answer)?;
        let who = "the user who ran `gcloud auth application-default login`".to_owned();
        Ok(Caller { access_token, quota_project: quota_project.clone(), who })
    }

    pub(super) async fn id_token(
        &self,
        cx: &Context,
        caller: &Caller,
        account: &str,
        delegates: &[String],
        audience: &str,
    ) -> Result<IdentityToken, Error> {
        let mut url = self.iam.clone();
        url.path_segments_mut()
            .map_err(|()| Error::setting("iam-endpoint", "iam-endpoint is not a URL with a path"))?
            .pop_if_empty()
            .extend(["v1", "projects", "-", "serviceAccounts", &format!("{account}:generateIdToken")]);
        let delegates: Vec<_> = delegates.iter().map(|name| resource(name)).collect();
        let body = json!({ "audience": audience, "includeEmail": true, "delegates": delegates });
        let bearer = Zeroizing::new(format!("Bearer {}", *caller.access_token));
        let mut request = cx
            .http
            .request(Destination::Network, Method::POST, url)
            .header(AUTHORIZATION, bearer.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        if let Some(project) = &caller.quota_project {
            request = request.header("x-goog-user-project", project);
        }
        let answer = cx.http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        if answer.status != 200 {
            return Err(refused(&answer, account, &caller.who));
        }
        let Minted { token } = answer::json(SERVICE, &answer)?;
        cx.identity(&token, SERVICE, AUDIENCE_IGNORED)
    }
}

/// The attached account's access token, from the metadata server's answer.
pub(super) fn attached(who: &str, answer: &Answer) -> Result<Caller, Error> {
    let Granted { access_token } = answer::json(who, answer)?;
    let who = "the service account that is attached to this machine".to_owned();
    Ok(Caller { access_token, quota_project: None, who })
}

/// As the API wants them; `gcloud` writes them so already.
fn resource(delegate: &str) -> String {
    if delegate.contains('/') {
        delegate.to_owned()
    } else {
        format!("projects/-/serviceAccounts/{delegate}")
    }
}

fn refused_user(answer: &Answer, adc: &Adc) -> Error {
    let said: Option<OAuthError> = answer::json(TOKEN_SERVICE, answer).ok();
    let code = said.as_ref().map_or("", |said| said.error.as_str());
    let words = said.as_ref().map(|said| format!("{}: {}", said.error, said.error_description));
    let error = answer::refusal(TOKEN_SERVICE, answer, words.as_deref());
    let path = adc.path.display();
    match code {
        // Revoked, or the organization's session length has passed (`invalid_rapt`).
        "invalid_grant" => {
            error.kind(Kind::Rejected).hint(format_args!("the sign-in kept in {path} is over; run: {LOGIN}"))
        }
        "invalid_client" | "unauthorized_client" => {
            error.kind(Kind::Rejected).hint(format_args!("{path} is not usable any more; run: {LOGIN}"))
        }
        _ => error,
    }
}

fn refused(answer: &Answer, account: &str, who: &str) -> Error {
    let said: Option<ApiError> = answer::json(SERVICE, answer).ok();
    let words = said.as_ref().map(|said| said.error.message.as_str());
    let off = said.as_ref().is_some_and(|said| {
        said.error.details.iter().any(|detail| detail.reason.as_deref() == Some("SERVICE_DISABLED"))
    });
    let error = answer::refusal(SERVICE, answer, words);
    match answer.status {
        403 if off => error.kind(Kind::Misconfigured).hint(
            "switch the API on in the project: gcloud services enable iamcredentials.googleapis.com --project=PROJECT",
        ),
        403 => error.hint(format_args!(
            "let {who} act as {account}: gcloud iam service-accounts add-iam-policy-binding {account} \
             --role=roles/iam.serviceAccountOpenIdTokenCreator --member=user:EMAIL (or serviceAccount:EMAIL)"
        )),
        401 => error.hint(
            "a Google Compute Engine machine needs the scope cloud-platform for its account (gcloud compute instances \
             set-service-account NAME --scopes=cloud-platform)",
        ),
        404 => error.hint(format_args!("there is no service account {account}")),
        _ => error,
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Minted {
    token: Zeroizing<String>,
}

#[derive(Deserialize)]
struct OAuthError {
    error: String,
    #[serde(default)]
    error_description: String,
}

#[derive(Deserialize)]
struct ApiError {
    error: ApiErrorBody,
}

#[derive(Deserialize)]
struct ApiErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    reason: Option<String>,
}

const SERVICE: &str = "Google's IAM Credentials API";
const TOKEN_SERVICE: &str = "Google's token service";
const TOKEN_ENDPOINT: &str = "https://oauth2.googleapis.com/token";
const IAM_ENDPOINT: &str = "https://iamcredentials.googleapis.com";
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 64 * 1024;
