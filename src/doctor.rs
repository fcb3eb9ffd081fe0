//! Finds out why W&B would refuse, before it does: checks each step from the source to an API call, with a remedy.
//!
//! `wandb-credd doctor` runs it with or without a daemon, the server runs it for `GET /v1/doctor`. It writes nothing, and
//! asks only for what the daemon asks for anyway, once.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | `report` | findings in their order, without anything that looks like a token |
//! | `text` | the findings of an examination for people and programs |
//! | `source` | one attempt at an identity token and at an access token |
//! | `identity` | the JWT: form, lifetime, audience |
//! | `subject` | the subject: does it stay the same, and what to do if not |
//! | `sign_in` | whether a person could sign in: what `login` looks at first |
//! | `issuer` | discovery, keys, signature |
//! | `network` | W&B's address, TLS, proxies, clocks |
//! | `exchange` | the exchange, and an API call with its token |
//! | `environment` | the variables of this shell against those of the daemon |
//! | `machine` | folders, daemon, service |
//! | `loopback` | the loopback proxy |
//! | `sdk` | the environment that a W&B program would see |

use std::time::Duration;

use crate::clock::Clock;
use crate::env::Env;
use crate::error::{Error, Exit};
use crate::http::Http;
use crate::profile::BaseUrl;
use crate::token::AccessToken;

pub mod environment;
mod exchange;
mod identity;
mod issuer;
pub mod loopback;
pub mod machine;
mod network;
pub mod report;
pub mod sdk;
mod sign_in;
mod source;
mod subject;
pub mod text;

pub use report::{Live, Report, Step};
pub use source::Source;

/// The profile to check, and what to check it with.
pub struct Context<'a> {
    pub profile: &'a str,
    pub base_url: &'a BaseUrl,
    pub audience: Option<&'a str>,
    /// The provider's kind, as the configuration spells it.
    pub provider: &'a str,
    pub env: &'a Env,
    pub clock: &'a Clock,
    pub http: &'a Http,
}

/// What was found out about a server.
#[derive(Default)]
struct Probe {
    report: Report,
    /// Its clock minus ours, in seconds.
    skew: Option<i64>,
}

/// Runs every check, from the identity source to an authenticated call. Takes no longer than [`TIMEOUT`].
pub async fn diagnose(cx: &Context<'_>, source: &Source, report: &mut Report) {
    // What was found before the time ran out is kept.
    let checks = run_checks(cx, source, report);
    if tokio::time::timeout(TIMEOUT, checks).await.is_err() {
        let found = format!(
            "gave up after {} s; the steps that are missing here were not checked",
            TIMEOUT.as_secs()
        );
        report.fail(Step::Exchange, Exit::TryLater, found, "try again when the network works");
    }
}

async fn run_checks(cx: &Context<'_>, source: &Source, report: &mut Report) {
    network::proxy(cx, report);
    report.begin("the source of tokens");
    if let Some(access) = source.relayed().await {
        return check_relayed(cx, source, access, report).await;
    }
    sign_in::check(source, report).await;
    let token = identity::fetch(cx, source, report).await;
    report.begin("the issuer and the W&B server");
    let check_issuer = async {
        match &token {
            Some(token) => issuer::check(cx, token).await,
            None => Probe::default(),
        }
    };
    let (issuer, server) = tokio::join!(check_issuer, network::server(cx));
    if let Some(token) = &token {
        identity::check(cx, token, report);
    }
    let clocks = [("the issuer", issuer.skew), ("W&B", server.skew)];
    network::clocks(&clocks, report);
    report.append(issuer.report);
    report.append(server.report);
    report.begin("the exchange");
    exchange::check(cx, source, token.as_ref(), report).await;
}

/// A profile that gets its access tokens from another daemon: what goes before them is that one's to check.
async fn check_relayed(
    cx: &Context<'_>,
    source: &Source,
    access: Result<AccessToken, Error>,
    report: &mut Report,
) {
    match (&access, source.exchange_error()) {
        (Ok(_), None) => report.ok(Step::Provider, "access tokens come from another daemon"),
        (Ok(_), Some(error)) => report.warn(
            Step::Provider,
            format!("the last access token is still valid, but none newer comes: {error}"),
            THERE,
        ),
        (Err(error), _) => report.fail(Step::Provider, Exit::from(error), &*error.message, THERE),
    }
    report.skip(&identity::TOKEN_STEPS, "only access tokens come here");
    let server = network::server(cx).await;
    network::clocks(&[("W&B", server.skew)], report);
    report.append(server.report);
    match access {
        Ok(access) => exchange::check_access(cx, &access, report).await,
        Err(_) => report.skip(&[Step::ApiCall, Step::TokenLife], "needs an access token"),
    }
}

const THERE: &str = "run the doctor where the tokens come from: wandb-cred doctor";

/// For all checks together.
pub const TIMEOUT: Duration = Duration::from_secs(80);
