//! The exchange, what W&B means when it refuses, and an API call with the access token.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::Value;
use zeroize::Zeroizing;

use super::report::{Report, Step};
use super::{Context, Source};
use crate::duration;
use crate::error::{Cause, Error, Exit, Reason};
use crate::http::Destination;
use crate::redact::redact;
use crate::token::{AccessToken, Expires as _, IdentityToken};

pub(super) async fn check(
    cx: &Context<'_>,
    source: &Source,
    token: Option<&IdentityToken>,
    report: &mut Report,
) {
    let steps = [Step::Exchange, Step::ApiCall, Step::TokenLife];
    let Some(token) = token else {
        match source.cached_access_token() {
            None => report.skip(&steps, "needs an identity token"),
            Some(access) => {
                report.ok(Step::Exchange, "the daemon still has an access token, but cannot renew it");
                check_api(cx, &access, report).await;
                check_lifetime(cx, &access, report);
            }
        }
        return;
    };
    // The daemon does not present such a token either, and only W&B may see one.
    if let Some(step) = report.failed(&[Step::Lifetime, Step::Audience, Step::Server]) {
        report.skip(&steps, &format!("fix `{step}` first"));
        return;
    }
    let access = match source.access(token).await {
        Ok(access) => access,
        Err(error) => {
            refused(cx, source, token, &error, report);
            report.skip(&[Step::ApiCall, Step::TokenLife], "needs an access token");
            return;
        }
    };
    let how = if source.is_direct() {
        "W&B gives an access token for it"
    } else {
        "the daemon holds an access token"
    };
    match source.exchange_error() {
        None => report.ok(Step::Exchange, how),
        Some(error) => {
            let found = format!("{how}, but its renewal fails: {error}");
            report.warn(Step::Exchange, found, remedy(cx, token, &error.reason));
        }
    }
    report.downgrade();
    report.begin("a call to W&B");
    check_api(cx, &access, report).await;
    check_lifetime(cx, &access, report);
}

/// What can be told of an access token that another daemon got.
pub(super) async fn check_access(cx: &Context<'_>, access: &AccessToken, report: &mut Report) {
    report.ok(Step::Exchange, "another daemon made it");
    check_api(cx, access, report).await;
    check_lifetime(cx, access, report);
}

fn refused(cx: &Context<'_>, source: &Source, token: &IdentityToken, error: &Error, report: &mut Report) {
    let message = &*error.message;
    let replayed = error.reason == Reason::Replayed;
    if replayed
        && source.is_direct()
        && REPEATING_SOURCES.contains(&source.detected_provider().unwrap_or(cx.provider))
    {
        // An earlier caller (an SDK, a daemon, this doctor) got an access token for it, so the path works.
        let remedy = "nothing is wrong with the path; a daemon keeps the access token that the first exchange gave, and \
                      needs a new JWT only for the next one: let the source write one";
        report.warn(
            Step::Exchange,
            format!("W&B takes each JWT once, and has seen this one: {message}"),
            remedy,
        );
        return;
    }
    let exit = Exit::from(error);
    let remedy =
        match report.failed(&[Step::Issuer, Step::Signature, Step::Subject, Step::Lifetime, Step::Clock]) {
            Some(step) => format!("fix `{step}` first, above"),
            None => remedy(cx, token, &error.reason),
        };
    report.fail(Step::Exchange, exit, message, remedy);
}

/// Sources that give the same JWT until somebody else writes another.
const REPEATING_SOURCES: [&str; 6] = ["file", "env", "gitlab", "circleci", "wandb-sso", "kubernetes"];

/// How to fix this refusal. If its cause is not known, it names everything that W&B compares.
fn remedy(cx: &Context<'_>, token: &IdentityToken, reason: &Reason) -> String {
    let claims = token.claims();
    let issuer = claims.iss.as_deref().unwrap_or_default();
    let subject = claims.subject().unwrap_or_default();
    let audience = claims.aud.join("\", \"");
    let cause = match reason {
        Reason::Replayed => {
            return "the source gives the same JWT twice: let it make a new one at each call (turn its own cache off)"
                .into();
        }
        Reason::NoTokenEndpoint { .. } => {
            return format!(
                "set base-url in [profile.{}] to the API's address; a Self-Managed server may be too old for identity \
                 federation",
                cx.profile
            );
        }
        Reason::Refused { cause, .. } => *cause,
        _ => {
            return "W&B or a proxy in front of it cannot answer now: try again (https://status.wandb.com)"
                .into();
        }
    };
    match cause {
        Some(Cause::FederationOff) => {
            "identity federation is off on this server: it needs an Enterprise licence (W&B support)".into()
        }
        Some(Cause::Issuer) => format!(
            "an admin of the W&B organization adds it: Settings > Authentication > JWT Issuers > Add JWT Issuer, exactly {issuer:?}"
        ),
        Some(Cause::Audience) => format!(
            "W&B expects the organization's name in `aud`, and the JWT says \"{audience}\": set `audience` in \
             [profile.{}] to the name as W&B spells it (Self-Managed: FEDERATED_AUTH_AUDIENCES)",
            cx.profile
        ),
        Some(Cause::Time) => {
            "by W&B's clock the JWT has expired or is not yet valid: see the step `clock`, or ask the source for \
             tokens that live longer"
                .into()
        }
        Some(Cause::Signature) => format!(
            "W&B must reach {issuer}/.well-known/openid-configuration and its keys: is there a firewall in between?"
        ),
        Some(Cause::Subject) => format!(
            "W&B does not know {subject:?}: invite the person with that email, or create a service account with exactly \
             that Subject (Settings > Service accounts)"
        ),
        Some(Cause::Format) => {
            "W&B cannot read the JWT: has the issuer encrypted it, or does it use an unusual algorithm?".into()
        }
        None => format!(
            "one of these differs from what W&B has: issuer {issuer:?} (Settings > Authentication > JWT Issuers), audience \
             \"{audience}\" (the organization's name), subject {subject:?} (a user's email, or a service account's \
             Subject). An admin sees them in the organization's settings"
        ),
    }
}

/// Asks W&B who this identity is.
async fn check_api(cx: &Context<'_>, access: &AccessToken, report: &mut Report) {
    let mut url = cx.base_url.url().clone();
    url.set_path(&format!("{}/graphql", url.path().trim_end_matches('/')));
    let bearer = Zeroizing::new(format!("Bearer {}", access.secret().expose()));
    let question = r#"{"query":"query Viewer { viewer { id username entity } }","variables":{}}"#;
    let request = cx
        .http
        .request(Destination::Network, Method::POST, url)
        .header(AUTHORIZATION, bearer.as_str())
        .header(CONTENT_TYPE, "application/json")
        .body(question);
    let answer = match cx.http.send(Destination::Network, request, TIMEOUT, MAX_ANSWER).await {
        Ok(answer) => answer,
        Err(error) => {
            return report.fail(
                Step::ApiCall,
                Exit::TryLater,
                error.to_string(),
                "the exchange worked a moment ago: try again",
            );
        }
    };
    match answer.status {
        200 => {
            let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let viewer = &value["data"]["viewer"];
            if viewer.is_object() {
                let text = |name: &str| viewer[name].as_str().map(|text| redact(text, 80));
                let who = text("username").or_else(|| text("entity")).unwrap_or_else(|| "this identity".into());
                return report.ok(Step::ApiCall, format!("W&B answers an authenticated question: signed in as {who}"));
            }
            let message = value["errors"][0]["message"].as_str().map_or(String::new(), |message| format!(": {}", redact(message, 200)));
            let remedy = "the token is valid but stands for nobody: is the user or service account active, and in the \
                          organization?";
            report.fail(Step::ApiCall, Exit::Configuration, format!("W&B answers without a user{message}"), remedy);
        }
        401 | 403 => report.fail(
            Step::ApiCall,
            Exit::Configuration,
            format!("W&B refuses the access token that it issued itself (status {})", answer.status),
            "does a proxy strip the Authorization header? Was the token revoked? Run: wandb-cred refresh. If neither helps, ask W&B support",
        ),
        status => report.fail(
            Step::ApiCall,
            Exit::TryLater,
            format!("W&B answers an authenticated question with status {status}"),
            "try again (https://status.wandb.com)",
        ),
    }
}

fn check_lifetime(cx: &Context<'_>, access: &AccessToken, report: &mut Report) {
    let left = i64::try_from(access.expiry().remaining(cx.clock.now()).as_secs()).unwrap_or(i64::MAX);
    if left > SDK_LIMIT {
        return report.ok(Step::TokenLife, format!("{} left", duration::text(left)));
    }
    report.warn(
        Step::TokenLife,
        format!("{} left: at 5 min or less, a W&B SDK makes an exchange of its own before every request", duration::text(left)),
        "have the W&B server issue access tokens of at least 15 minutes (a setting of the server), or use `wandb-cred token`",
    );
}

/// At 300 s of life or less the SDK exchanges by itself (wandb 0.19.11 to 0.31.0).
const SDK_LIMIT: i64 = 300;

const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 256 * 1024;
