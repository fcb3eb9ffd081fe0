//! The issuer as W&B sees it: its discovery document, its key set, and whether one of the keys made the signature.

use std::time::Duration;

use reqwest::Method;
use url::Url;

use super::report::{Report, Step};
use super::{Context, Probe, network};
use crate::error::Exit;
use crate::http::{self, Answer, Destination};
use crate::json::Fault;
use crate::oidc::keys::{KeySet, Unverified};
use crate::oidc::metadata::{Document, NotOf};
use crate::token::IdentityToken;

pub(super) async fn check(cx: &Context<'_>, token: &IdentityToken) -> Probe {
    let mut probe = Probe::default();
    if let Err(Failure { step, exit, found, remedy }) = check_documents(cx, token, &mut probe).await {
        probe.report.fail(step, exit, found, remedy);
        if step == Step::Issuer {
            probe.report.skip(&[Step::Signature], "needs the issuer's keys");
        }
    }
    probe
}

struct Failure {
    step: Step,
    exit: Exit,
    found: String,
    remedy: String,
}

fn failure(step: Step, found: impl Into<String>, remedy: impl Into<String>) -> Failure {
    Failure { step, exit: Exit::Configuration, found: found.into(), remedy: remedy.into() }
}

async fn check_documents(cx: &Context<'_>, token: &IdentityToken, probe: &mut Probe) -> Result<(), Failure> {
    let issuer = token.claims().iss.as_deref().unwrap_or_default();
    check_name(cx, issuer)?;
    let address = Document::address(issuer);
    let answer = get(cx, Step::Issuer, &address).await?;
    probe.skew = answer.skew;
    let refused = |fault: Fault| {
        let remedy = match fault {
            Fault::NotJson(_) | Fault::NotAnObject(_) => "is this the issuer's URL, and not that of a page?",
            Fault::Missing("jwks_uri") => "the issuer must publish its keys",
            _ => "fix the document that the issuer publishes",
        };
        failure(Step::Issuer, format!("{address} {fault}"), remedy)
    };
    let document = Document::parse(&answer.body).map_err(refused)?;
    let keys = document.keys_of(issuer).map_err(|why| match why {
        NotOf::Unreadable(fault) => refused(fault),
        NotOf::Another(named) => another(issuer, &named),
        NotOf::Unprotected(keys) => {
            let found = format!("{address} names its keys at {:?}, which is not https", keys.as_str());
            failure(Step::Issuer, found, "publish the key set over https")
        }
    })?;
    probe.report.ok(
        Step::Issuer,
        format!("{issuer:?} answers; an admin enters exactly this under Settings > Authentication > JWT Issuers > Add JWT Issuer"),
    );
    let keys = String::from(keys);
    let answer = get(cx, Step::Signature, &keys).await?;
    let set = KeySet::parse(&answer.body).map_err(|fault| {
        let found = format!("{keys} is not a JSON Web Key Set: it {fault}");
        failure(Step::Signature, found, "the issuer must publish its keys there")
    })?;
    signature(token, &keys, &set, &mut probe.report)
}

/// The document is not that of the JWT's issuer.
fn another(issuer: &str, named: &str) -> Failure {
    let slash = named.trim_end_matches('/') == issuer.trim_end_matches('/');
    let why = if slash { "they differ by a slash, and W&B compares exactly" } else { "W&B refuses that" };
    failure(
        Step::Issuer,
        format!("the JWT's `iss` is {issuer:?}, but its discovery document says {named:?}: {why}"),
        "fix the issuer's own URL in the identity provider's settings, so that both are the same",
    )
}

fn is_fetchable(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| http::check_url(&url, Destination::Network).is_ok())
}

/// Whether W&B can find an issuer of this name at all.
fn check_name(cx: &Context<'_>, issuer: &str) -> Result<(), Failure> {
    let bad = |found: String, remedy: &str| Err(failure(Step::Issuer, found, remedy));
    if issuer.is_empty() {
        return bad(
            "the JWT has no `iss`".into(),
            "use a source whose JWTs come from an OpenID Connect issuer",
        );
    }
    if issuer.trim() != issuer {
        return bad(
            format!("`iss` is {issuer:?}, with white space"),
            "fix the issuer's URL in the identity provider",
        );
    }
    let Ok(url) = Url::parse(issuer) else {
        let remedy = "W&B finds keys by discovery, so the issuer must be an https URL (Kubernetes: \
                      --service-account-issuer; SPIFFE: run the OIDC discovery provider and set jwt_issuer)";
        return bad(format!("`iss` is {issuer:?}, which is not a URL"), remedy);
    };
    if !is_fetchable(issuer) {
        return bad(
            format!("`iss` is {issuer:?}, and W&B fetches keys over https only"),
            "publish the issuer over https (ADFS: give W&B an ID token, whose `iss` is https; its access tokens have another)",
        );
    }
    if is_private(&url) && !is_private(cx.base_url.url()) {
        let remedy = "publish the issuer's two documents at a public https URL and make that its name (Kubernetes: the \
                      API server's --service-account-issuer and --service-account-jwks-uri; EKS, GKE and AKS have a \
                      public issuer), or use another identity source";
        let server = cx.base_url.url().host_str().unwrap_or_default();
        return bad(
            format!("`iss` is {issuer:?}, which {server} cannot reach: the name is not public"),
            remedy,
        );
    }
    Ok(())
}

/// Whether the name means something only on this machine or its network.
fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => http::is_platform_address(ip.into()),
        Some(url::Host::Ipv6(ip)) => http::is_platform_address(ip.into()),
        Some(url::Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            !name.contains('.') || PRIVATE_SUFFIXES.iter().any(|end| name.ends_with(end))
        }
        None => true,
    }
}

const PRIVATE_SUFFIXES: [&str; 8] =
    [".localhost", ".local", ".svc", ".internal", ".lan", ".home.arpa", ".intranet", ".corp"];

async fn get(cx: &Context<'_>, step: Step, url: &str) -> Result<Answer, Failure> {
    let parsed = Url::parse(url).expect("checked above");
    let request = cx.http.request(Destination::Network, Method::GET, parsed);
    let answer =
        cx.http.send(Destination::Network, request, TIMEOUT, MAX_DOCUMENT).await.map_err(|error| {
            let remedy = network::proxy_remedy(&error).unwrap_or(
            "W&B must reach it too: is it public, with a valid certificate? Behind a proxy, set HTTPS_PROXY",
        );
            Failure {
                step,
                exit: Exit::from(&error),
                found: format!("{url}: {error}"),
                remedy: remedy.into(),
            }
        })?;
    let what = if step == Step::Issuer { "discovery document" } else { "key set" };
    let found = format!("{url} answers with status {}, not with the {what}", answer.status);
    match answer.status {
        200 => Ok(answer),
        401 | 403 => Err(failure(
            step,
            found,
            "W&B reads it without signing in: make it public (Kubernetes: bind the role \
             system:service-account-issuer-discovery to the group system:unauthenticated)",
        )),
        408 | 429 | 500..=599 => Err(Failure {
            exit: Exit::TryLater,
            ..failure(step, found, "try again; W&B needs it at every exchange")
        }),
        300..=399 => {
            Err(failure(step, found, "make the issuer's name the URL that answers without a redirect"))
        }
        _ => Err(failure(
            step,
            found,
            "is `iss` the issuer's own URL, complete with its path (tenant, realm, authorization server)?",
        )),
    }
}

fn signature(token: &IdentityToken, url: &str, keys: &KeySet, report: &mut Report) -> Result<(), Failure> {
    let header = token.header();
    let bad = |found: String, remedy: &str| Err(failure(Step::Signature, found, remedy));
    let checked = keys.check(token.jwt().expose(), &header.alg, header.kid.as_deref());
    if let Err(Unverified::NotPublic) = checked {
        let found = format!("{} is made with a shared secret, which no public key can check", header.alg);
        return bad(found, "have the issuer sign with RS256 or ES256 (Auth0: API > Signing Algorithm)");
    }
    if keys.is_empty() {
        return bad(
            format!("{url} holds no usable key"),
            "the issuer must publish the key that it signs with",
        );
    }
    match checked {
        Ok(()) => {}
        Err(Unverified::UnknownAlgorithm | Unverified::NotPublic) => {
            let found = format!("{} cannot be checked here; {url} holds {} keys", header.alg, keys.len());
            report.warn(Step::Signature, found, "every server supports RS256 and ES256");
            return Ok(());
        }
        Err(Unverified::NoSuchKey) => {
            let kid = header.kid.as_deref().unwrap_or_default();
            return bad(
                format!("the JWT is signed with key {kid:?}, and {url} holds {}", keys.ids().join(", ")),
                "the issuer changed its keys, or the JWT is another issuer's: get a new JWT; if that does not help, fix the key \
                 set that the issuer publishes",
            );
        }
        Err(Unverified::Mismatch) => {
            return bad(
                format!("none of the keys at {url} made this signature ({})", header.alg),
                "the JWT was changed on its way, or the published key is not the one in use: get a new JWT, and compare the key set",
            );
        }
    }
    match &header.kid {
        None if keys.len() > 1 => report.warn(
            Step::Signature,
            format!("valid, but the JWT does not say which of {} keys made it", keys.len()),
            "have the issuer put `kid` into the header: W&B may not try every key",
        ),
        _ => report.ok(Step::Signature, format!("{} by a key that the issuer publishes", header.alg)),
    }
    Ok(())
}

/// For each document.
const TIMEOUT: Duration = Duration::from_secs(10);

/// As for a sign-in.
const MAX_DOCUMENT: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_only_this_network_knows_are_private() {
        for url in [
            "https://kubernetes.default.svc.cluster.local",
            "https://kubernetes.default.svc",
            "https://10.0.0.1",
            "https://[fd00::1]",
            "http://localhost:1",
            "https://idp",
        ] {
            assert!(is_private(&url.parse().expect("a URL")), "{url}");
        }
        for url in ["https://accounts.google.com", "https://203.0.113.5", "https://idp.acme.example/realms/x"]
        {
            assert!(!is_private(&url.parse().expect("a URL")), "{url}");
        }
    }
}
