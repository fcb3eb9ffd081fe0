//! Calls to AWS STS: the regional address, the SigV4 signature, and what the XML answer says. `aws` and
//! `chain` call.

use std::time::Duration;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use crate::env::Env;
use crate::error::{Error, Kind};
use crate::http::{Answer, Destination};
use crate::provider::answer;
use crate::provider::settings::{setting_url, variable_url};
use crate::provider::source::Context;
use crate::redact::redact;

pub(super) struct Sts<'a> {
    url: Url,
    region: &'a str,
    timeout: Duration,
    cx: &'a Context,
}

/// STS said no, or nothing.
pub struct Refusal {
    /// STS's own code; empty if there is none.
    pub code: String,
    pub error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { code: String::new(), error }
    }
}

impl<'a> Sts<'a> {
    /// The global address does not have `GetWebIdentityToken`, so the region is always used.
    pub(super) fn new(
        cx: &'a Context,
        endpoint: Option<&str>,
        region: &'a str,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let url = match endpoint {
            Some(url) => setting_url("endpoint-url", url, Destination::Network)?,
            None => self::endpoint(&cx.env, "AWS_ENDPOINT_URL_STS", "sts", region)?,
        };
        Ok(Self { url, region, timeout, cx })
    }

    /// One call; unsigned without credentials.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        form: &[(String, String)],
        credentials: Option<&Credentials>,
    ) -> Result<T, Refusal> {
        // Holds a token if the call is AssumeRoleWithWebIdentity.
        let body =
            Zeroizing::new(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish());
        let http = &self.cx.http;
        let mut request =
            http.request(Destination::Network, Method::POST, self.url.clone()).header(CONTENT_TYPE, FORM);
        if let Some(credentials) = credentials {
            for (name, value) in self.signature(&body, credentials)? {
                request = request.header(name, value);
            }
        }
        let request = request.body(body.to_string());
        let answer = http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        if answer.status != 200 {
            return Err(refusal(&answer));
        }
        let text = answer.text();
        quick_xml::de::from_str(&text).map_err(|_| {
            // The parser's words can quote the answer.
            let kind =
                answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
            let kind = redact(kind, 60);
            let message = format!("{SERVICE} answered 200 without the XML expected (content type {kind})");
            answer::unreadable(SERVICE, None, message).into()
        })
    }

    fn signature(
        &self,
        body: &str,
        credentials: &Credentials,
    ) -> Result<Vec<(&'static str, HeaderValue)>, Error> {
        let unsignable = |why: &dyn std::fmt::Display| {
            let source = credentials.source;
            Error::misconfigured(format!("cannot sign with the AWS credentials ({source}): {why}"))
        };
        let identity = aws_credential_types::Credentials::new(
            credentials.id.clone(),
            credentials.secret.expose().clone(),
            credentials.session.as_ref().map(|session| session.expose().clone()),
            None,
            "wandb-cred",
        )
        .into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name("sts")
            .time(self.cx.clock.now().wall.into())
            .settings(SigningSettings::default())
            .build()
            .map_err(|why| unsignable(&why))?
            .into();
        let headers = [(CONTENT_TYPE.as_str(), FORM)];
        let body = SignableBody::Bytes(body.as_bytes());
        let request = SignableRequest::new("POST", self.url.as_str(), headers.into_iter(), body)
            .map_err(|why| unsignable(&why))?;
        let (instructions, _) = sign(request, &params).map_err(|why| unsignable(&why))?.into_parts();
        let (headers, _) = instructions.into_parts();
        headers
            .into_iter()
            .map(|header| {
                let mut value = HeaderValue::from_str(header.value())
                    .map_err(|_| unsignable(&"they hold characters that no header can"))?;
                value.set_sensitive(true);
                Ok((header.name(), value))
            })
            .collect()
    }
}

/// The address of a service: the one of `variable`, the one for all, or the region's own.
pub(super) fn endpoint(env: &Env, variable: &str, service: &str, region: &str) -> Result<Url, Error> {
    // The region becomes part of a host name.
    if region.is_empty() || !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return Err(Error::setting("region", "the AWS region must look like eu-central-1"));
    }
    let ignored = env.var("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    let ignored = ignored.is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let named = [variable, "AWS_ENDPOINT_URL"]
        .into_iter()
        .find_map(|name| Some((name, env.var(name)?)))
        .filter(|_| !ignored);
    match named {
        Some((name, url)) => variable_url(name, &url, Destination::Network),
        None => {
            Ok(Url::parse(&format!("https://{service}.{region}.{}/", suffix(region)))
                .expect("a checked region"))
        }
    }
}

/// STS's answer as an error: some of its codes say more than the status.
pub fn refusal(answer: &Answer) -> Refusal {
    let said = quick_xml::de::from_str::<ErrorResponse>(&answer.text()).ok().map(|answer| answer.error);
    let Some(ErrorBody { code, message }) = said else {
        return answer::refusal(SERVICE, answer, None).into();
    };
    let generic = answer::refusal(SERVICE, answer, Some(&format!("{code}: {message}")));
    let error = match code.trim_end_matches("Exception") {
        "Throttling"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "IDPCommunicationError"
        | "ServiceUnavailable"
        | "InternalFailure" => generic.kind(Kind::Transient).retry_after(answer.retry_after),
        "SignatureDoesNotMatch" | "RequestExpired" | "RequestTimeTooSkewed"
            if answer.skew.is_some_and(|skew| skew.abs() > MAX_SKEW) =>
        {
            let skew = answer.skew.unwrap_or_default();
            let hint = format!("this machine's clock is off by {skew} s: set it (NTP)");
            generic.kind(Kind::Transient).hint(hint)
        }
        "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "ExpiredToken"
        | "InvalidClientTokenId"
        | "UnrecognizedClient"
        | "InvalidIdentityToken"
        | "IDPRejectedClaim" => generic.kind(Kind::Rejected),
        "RegionDisabled" => {
            generic.kind(Kind::Misconfigured).hint("activate STS in this region, or set another `region`")
        }
        _ => generic,
    };
    Refusal { code, error }
}

/// The DNS suffix of the region's partition, from botocore's partitions.json.
fn suffix(region: &str) -> &'static str {
    let table = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("us-isof-", "csp.hci.ic.gov"),
    ];
    let partition = table.iter().find(|(prefix, _)| region.starts_with(prefix));
    partition.map_or("amazonaws.com", |(_, suffix)| suffix)
}

#[derive(Deserialize)]
struct ErrorResponse {
    #[serde(rename = "Error")]
    error: ErrorBody,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody {
    code: String,
    #[serde(default)]
    message: String,
}

pub(super) const VERSION: &str = "2011-06-15";
const SERVICE: &str = "AWS STS";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const MAX_ANSWER: usize = 128 * 1024;
/// STS takes 5 minutes.
const MAX_SKEW: i64 = 240;
