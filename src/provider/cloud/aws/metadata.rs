//! The endpoints that give a machine or container the credentials of its role: the EC2 instance metadata service
//! (version 2 only) and the ECS or EKS Pod Identity agent. `chain` asks.
//!
//! IMDSv1 is not supported: a service that gives credentials to a bare GET gives them to anybody who can make a
//! program on this machine fetch a URL.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde::Deserialize;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::credentials::{Credentials, timestamp};
use crate::env::Env;
use crate::error::{Error, Kind, Reason};
use crate::http::{Answer, Destination, is_loopback};
use crate::provider::answer;
use crate::provider::settings::variable_url;
use crate::provider::source::Context;
use crate::read_file::{self, off_thread};
use crate::redact::redact;
use crate::token::Secret;

pub(super) struct Imds {
    base: Url,
    pub(super) timeout: Duration,
    cx: Context,
}

/// Opens the metadata service for one attempt.
pub(super) struct Session(Zeroizing<String>);

impl Imds {
    pub(super) fn new(cx: &Context, timeout: Duration) -> Result<Self, Error> {
        let base = match (cx.env.var(ENDPOINT), cx.env.var("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")) {
            (Some(url), _) => variable_url(ENDPOINT, &url, Destination::Platform)?,
            (None, Some(mode)) if mode.eq_ignore_ascii_case("ipv6") => constant("http://[fd00:ec2::254]/"),
            _ => constant("http://169.254.169.254/"),
        };
        Ok(Self { base, timeout, cx: cx.clone() })
    }

    pub(super) async fn session(&self) -> Result<Session, Error> {
        if disabled(&self.cx.env) {
            return Err(Error::variable(DISABLED, format!("{DISABLED} is true")));
        }
        let request = self.request(Method::PUT, "latest/api/token").header(TTL_HEADER, TTL);
        let sent = self.cx.http.send(Destination::Platform, request, self.timeout, MAX_ANSWER).await;
        let answer = sent.map_err(|error| match error.kind {
            Kind::Transient => error.context(IMDS).hint(
                "in a container, the answer needs a second hop (aws ec2 modify-instance-metadata-options --instance-id ID \
                 --http-put-response-hop-limit 2)",
            ),
            _ => error,
        })?;
        match answer.status {
            200 if !answer.body.is_empty() => Ok(Session(Zeroizing::new(answer.text().trim().to_owned()))),
            403 => Err(Error::misconfigured(format!(
                "{IMDS} answered 403: it is turned off for this instance (aws ec2 modify-instance-metadata-options \
                 --instance-id ID --http-endpoint enabled)"
            ))
            .because(status(403))),
            200 => Err(answer::unreadable(IMDS, None, format!("{IMDS} gave an empty session token"))),
            _ => Err(answer::refusal(IMDS, &answer, None)),
        }
    }

    pub(super) async fn region(&self) -> Result<String, Error> {
        let session = self.session().await?;
        let answer = self.get("latest/meta-data/placement/region", &session).await?;
        match answer.status {
            200 => Ok(answer.text().trim().to_owned()),
            _ => Err(answer::refusal(IMDS, &answer, None)),
        }
    }

    pub(super) async fn credentials(&self) -> Result<Credentials, Error> {
        let session = self.session().await?;
        let answer = self.get(ROLE_PATH, &session).await?;
        match answer.status {
            200 => {}
            404 => return Err(no_role().because(status(404))),
            401 => {
                let error = answer::refusal(IMDS, &answer, None).kind(Kind::Transient);
                return Err(error.hint("its session token has ended"));
            }
            _ => return Err(answer::refusal(IMDS, &answer, None)),
        }
        let role = answer.text();
        let role = role.lines().next().unwrap_or_default().trim();
        if role.is_empty() {
            return Err(no_role());
        }
        // It becomes a path segment: whatever the service says must not lead elsewhere.
        if !role.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b)) {
            let message = format!("{IMDS} gave something other than the name of a role");
            return Err(answer::unreadable(IMDS, None, message));
        }
        let answer = self.get(&format!("{ROLE_PATH}{role}"), &session).await?;
        match answer.status {
            200 => given(IMDS, "the instance role", &answer),
            404 => Err(no_role().because(status(404))),
            _ => Err(answer::refusal(IMDS, &answer, None)),
        }
    }

    async fn get(&self, path: &str, session: &Session) -> Result<Answer, Error> {
        let request = self.request(Method::GET, path).header("x-aws-ec2-metadata-token", session.0.as_str());
        self.cx.http.send(Destination::Platform, request, self.timeout, MAX_ANSWER).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        self.cx.http.request(Destination::Platform, method, url)
    }
}

pub(super) fn disabled(env: &Env) -> bool {
    env.var(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Where the container's agent is, if the environment names one.
pub(super) fn container_url(env: &Env) -> Result<Option<Url>, Error> {
    if let Some(path) = env.var(RELATIVE) {
        // Joined as text, so that `@host` or `.host` cannot become part of the address unseen.
        let url = Url::parse(&format!("http://{ECS}{path}")).ok();
        let url =
            url.filter(|url| path.starts_with('/') && url.host_str() == Some(ECS) && url.port().is_none());
        return match url {
            Some(url) => Ok(Some(url)),
            None => Err(Error::variable(RELATIVE, format!("{RELATIVE} must be a path"))),
        };
    }
    let Some(url) = env.var(FULL) else { return Ok(None) };
    let url = Url::parse(&url).map_err(|_| Error::variable(FULL, format!("{FULL} is not a URL")))?;
    // The rule of the AWS SDKs: TLS, this machine, or one of the three agents. `localhost` is held to loopback
    // when it is resolved, other names are refused as botocore does.
    let agent = match url.host() {
        Some(Host::Ipv4(ip)) => [ECS, EKS].contains(&ip.to_string().as_str()),
        Some(Host::Ipv6(ip)) => ip.to_string() == EKS_V6,
        _ => false,
    };
    if url.scheme() != "https" && !is_loopback(&url) && !agent {
        let host = url.host_str().unwrap_or_default().to_owned();
        let message = format!(
            "{FULL}: over http, credentials are asked for at this machine, {ECS}, {EKS} and [{EKS_V6}] only"
        );
        return Err(Error::misconfigured(message).because(Reason::PlainHttp { host }));
    }
    Ok(Some(variable_url(FULL, url.as_str(), Destination::Platform)?))
}

pub(super) async fn container(cx: &Context, url: Url, timeout: Duration) -> Result<Credentials, Error> {
    let reach = if url.scheme() == "https" { Destination::Network } else { Destination::Platform };
    let mut request = cx.http.request(reach, Method::GET, url).header(ACCEPT, "application/json");
    if let Some(token) = authorization(&cx.env).await? {
        request = request.header(AUTHORIZATION, token.as_str());
    }
    let answer = cx.http.send(reach, request, timeout, MAX_ANSWER).await?;
    if answer.status != 200 {
        let said = serde_json::from_slice::<Said>(&answer.body)
            .ok()
            .map(|said| format!("{}: {}", said.code, said.message));
        return Err(answer::refusal(AGENT, &answer, said.as_deref()));
    }
    given(AGENT, "the container's role", &answer)
}

/// The file is read for each request: EKS replaces it.
async fn authorization(env: &Env) -> Result<Option<Zeroizing<String>>, Error> {
    let (token, from) = match (env.var(AUTH_FILE), env.var(AUTH)) {
        (Some(path), _) => {
            let path = PathBuf::from(path);
            let owned = path.clone();
            let read = off_thread(&path, move || {
                read_file::read_text(&owned, read_file::LIMIT)
                    .map_err(|error| error.kind(Kind::Transient).context(AUTH_FILE))
            });
            (read.await?, AUTH_FILE)
        }
        (None, Some(token)) => (Zeroizing::new(token), AUTH),
        (None, None) => return Ok(None),
    };
    if token.contains(['\r', '\n']) {
        let message = format!("{from}: the token has a line end in it, which no header can hold");
        return Err(Error::variable(from, message));
    }
    Ok(Some(token))
}

fn given(who: &str, source: &'static str, answer: &Answer) -> Result<Credentials, Error> {
    let given: Given = answer::json(who, answer)?;
    match (given.code.as_deref(), given.access_key_id, given.secret_access_key) {
        (None | Some("Success"), Some(id), Some(secret)) => Ok(Credentials {
            id,
            secret: Secret::new(secret),
            session: given.token.map(Secret::new),
            expires: given.expiration.as_deref().map(|at| timestamp(at, source)).transpose()?,
            source,
            renewable: true,
        }),
        (Some("AssumeRoleUnauthorizedAccess"), ..) => Err(Error::misconfigured(format!(
            "{who}: the role's trust policy does not let EC2 assume it; allow ec2.amazonaws.com to sts:AssumeRole"
        ))),
        (Some(code), ..) if code != "Success" => {
            Err(Error::transient(format!("{who} gave no credentials: {}", redact(code, 80))))
        }
        _ => {
            let message = format!("{who} answered without an access key");
            Err(answer::unreadable(who, Some("AccessKeyId"), message))
        }
    }
}

fn no_role() -> Error {
    Error::misconfigured(format!(
        "{IMDS} has no role for this instance: attach an instance profile (aws ec2 associate-iam-instance-profile)"
    ))
}

fn status(status: u16) -> Reason {
    Reason::Status { host: IMDS.to_owned(), status }
}

fn constant(url: &str) -> Url {
    Url::parse(url).expect("a constant URL")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    code: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    message: String,
}

const IMDS: &str = "the EC2 instance metadata service";
const AGENT: &str = "the container credentials endpoint";
const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const AUTH: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const AUTH_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const ECS: &str = "169.254.170.2";
const EKS: &str = "169.254.170.23";
const EKS_V6: &str = "fd00:ec2::23";
const ROLE_PATH: &str = "latest/meta-data/iam/security-credentials/";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// Six hours, as the SDKs ask; ours is used for one attempt.
const TTL: &str = "21600";
const MAX_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_asked_for_at_known_addresses_only() {
        let url = |name: &str, value: &str| container_url(&Env::fixed([(name, value)]));
        for good in [
            "http://127.0.0.1/x",
            "http://localhost:8080/x",
            "http://[::1]/x",
            "http://169.254.170.2/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "https://example.com/x",
        ] {
            assert!(url(FULL, good).is_ok(), "{good}");
        }
        for bad in [
            "http://169.254.169.254/x",
            "http://10.0.0.5/x",
            "http://example.com/x",
            "http://169.254.170.2.example.com/x",
            "http://user@127.0.0.1/x",
            "ftp://127.0.0.1/x",
            "nonsense",
        ] {
            assert!(matches!(url(FULL, bad), Err(Error { kind: Kind::Misconfigured, .. })), "{bad}");
        }
        let path = url(RELATIVE, "/v2/credentials/id?x=1").expect("a path").expect("set");
        assert_eq!(path.as_str(), "http://169.254.170.2/v2/credentials/id?x=1");
        for bad in [".example.com/x", "@example.com/x", ":80@example.com/", "x"] {
            assert!(url(RELATIVE, bad).is_err(), "{bad}");
        }
        let both = Env::fixed([(RELATIVE, "/a"), (FULL, "http://127.0.0.1/b")]);
        assert_eq!(container_url(&both).expect("good").expect("set").path(), "/a", "the relative one wins");
    }
}
