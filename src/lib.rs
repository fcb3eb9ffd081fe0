//! wandb-cred keeps an identity-provider JWT fresh, exchanges it for W&B access tokens (RFC 7523), and
//! serves them on a Unix socket.
//!
//! # Flow
//!
//! ```text
//! provider ──▶ identity keeper ──▶ exchange ──▶ access keeper ──┬─▶ server ──▶ any process
//! one attempt    one JWT kept        one POST      one access    └─▶ sdk_files ─▶ unmodified wandb, weave
//! per call       fresh               per call      token kept
//!                                                  fresh
//! ```
//!
//! # Layout
//!
//! Imports point up only.
//!
//! | level | modules |
//! |---|---|
//! | 0 words | [`token`] [`clock`] [`backoff`] [`env`] [`paths`] [`api`] [`http`] [`redact`] [`config_types`] [`process`] |
//! | 1 stages | [`provider`], [`exchange`], [`oidc`], [`secrets`] |
//! | 2 keeper | [`keeper`], [`profile`] |
//! | 3 edges | [`server`], [`sdk_files`], [`login`], [`doctor`] |
//! | 4 wiring | [`config`], [`daemon`] |
//! | beside | [`client`], [`cli`], [`sandbox`] |
//!
//! Without the feature `daemon` there is only what the command needs, so that the compiler holds it to that.

pub mod api;
#[cfg(feature = "daemon")]
pub mod backoff;
pub mod cli;
pub mod client;
pub mod clock;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod config_types;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod doctor;
pub mod env;
#[cfg(feature = "daemon")]
pub mod exchange;
#[cfg(feature = "daemon")]
pub mod http;
#[cfg(feature = "daemon")]
pub mod keeper;
#[cfg(feature = "daemon")]
pub mod login;
#[cfg(feature = "daemon")]
pub mod oidc;
pub mod paths;
#[cfg(feature = "daemon")]
pub mod process;
#[cfg(feature = "daemon")]
pub mod profile;
#[cfg(feature = "daemon")]
pub mod provider;
#[cfg(feature = "daemon")]
pub mod redact;
#[cfg(feature = "daemon")]
pub mod sandbox;
#[cfg(feature = "daemon")]
pub mod sdk_files;
#[cfg(feature = "daemon")]
pub mod secrets;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
pub mod token;
