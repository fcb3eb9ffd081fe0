//! Providers against stand-ins of their platforms, each accepted first by the vendor's own client.
//!
//! Needs `scripts/setup-tests stand-ins`; run all by `scripts/test-stand-ins`. The failures that need no second opinion
//! are data for `tests/providers.rs`.

mod black_hole;
mod ci;
mod clouds;
mod kubernetes;
mod namespace;
mod oauth;
mod process;
mod spiffe;

use wandb_cred::clock::Clock;
use wandb_cred::env::Env;
use wandb_cred::error::{Error, Kind};
use wandb_cred::http::Http;
use wandb_cred::provider::{Config, Context};
use wandb_cred::token::IdentityToken;

/// One attempt of a provider with this table and these variables, for the audience "acme".
async fn fetch(kind: &str, config: &str, vars: &[(&str, &str)]) -> Result<IdentityToken, Error> {
    fetch_for("acme", kind, config, vars).await
}

async fn fetch_for(
    audience: &str,
    kind: &str,
    config: &str,
    vars: &[(&str, &str)],
) -> Result<IdentityToken, Error> {
    let table = format!("[{kind}]\n{config}");
    let config: Config = toml::from_str(&table).unwrap_or_else(|why| panic!("{table}: {why}"));
    config.build(context(audience, vars))?.fetch().await
}

fn context(audience: &str, vars: &[(&str, &str)]) -> Context {
    let clock = Clock::system();
    Context {
        profile: "test".into(),
        audience: Some(audience.into()),
        base_url: None,
        env: Env::fixed(vars.iter().copied()),
        http: Http::new(clock.clone()),
        clock,
    }
}

fn class_of(error: &Error) -> &'static str {
    match error.kind {
        Kind::NeedsLogin => "needs-login",
        Kind::Rejected => "rejected",
        Kind::Misconfigured => "misconfigured",
        Kind::Transient | Kind::TooShort | Kind::TooSoon => "transient",
    }
}
