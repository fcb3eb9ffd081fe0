//! Why W&B would say no, before it does: walks the whole path and gives a verdict and a remedy for each step.
//!
//! `wandb-credd doctor` runs it with or without a daemon, the server runs it for `GET /v1/doctor`. It only looks:
//! what it asks for is what the daemon asks for anyway, once, and it writes nothing.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | `report` | findings in their order, scrubbed of anything like a token, as text |
//! | `source` | one attempt at an identity token and at an access token |
//! | `identity` | the JWT: form, lifetime, subject, audience |
//! | `subject` | which subjects stay the same, and what to do about those that do not |
//! | `issuer` | discovery, keys, signature |
//! | `network` | W&B's address, TLS, proxies, clocks |
//! | `exchange` | the exchange, and a call with its token |
//! | `machine` | folders, daemon, service |
//! | `sdk` | the environment that a W&B program would see |

use std::time::Duration;

use crate::clock::Clock;
use crate::env::Env;
use crate::error::Exit;
use crate::http::Http;
use crate::profile::BaseUrl;

mod exchange;
mod identity;
mod issuer;
pub mod machine;
mod network;
pub mod report;
pub mod sdk;
mod source;
mod subject;

pub use report::{Report, Step};
pub use source::Source;

/// The profile under examination, and what it is examined with.
pub struct Case<'a> {
    pub profile: &'a str,
    pub base_url: &'a BaseUrl,
    pub audience: Option<&'a str>,
    /// The provider's kind, as the configuration spells it.
    pub provider: &'a str,
    pub env: &'a Env,
    pub clock: &'a Clock,
    pub http: &'a Http,
}

/// From the identity source to an authenticated call. Bounded by [`DEADLINE`] whatever anybody does.
pub async fn examine(case: &Case<'_>, source: &Source) -> Report {
    let mut report = Report::default();
    // What was found when time ran out is still worth telling.
    let walk = walk(case, source, &mut report);
    if tokio::time::timeout(DEADLINE, walk).await.is_err() {
        let found = format!("gave up after {} s; what is missing here was not looked at", DEADLINE.as_secs());
        report.fail(Step::Exchange, Exit::TryLater, found, "try again when the network is well");
    }
    report
}

async fn walk(case: &Case<'_>, source: &Source, report: &mut Report) {
    network::proxy(case, report);
    let token = identity::fetch(case, source, report).await;
    let looking_at_issuer = async {
        match &token {
            Some(token) => issuer::examine(case, token).await,
            None => issuer::Look::skipped(),
        }
    };
    let (issuer, server) = tokio::join!(looking_at_issuer, network::server(case));
    if let Some(token) = &token {
        identity::examine(case, token, report);
    }
    let clocks = [("the issuer", issuer.skew), ("W&B", server.skew)];
    network::clocks(&clocks, report);
    report.append(issuer.report);
    report.append(server.report);
    exchange::examine(case, source, token.as_ref(), report).await;
}

/// For everything.
pub const DEADLINE: Duration = Duration::from_secs(80);
