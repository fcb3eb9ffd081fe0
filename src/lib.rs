//! wandb-cred keeps an identity-provider JWT fresh, exchanges it for W&B access tokens (RFC 7523), and
//! serves them on a Unix socket.
//!
//! # Flow
//!
//! ```text
//! provider ──▶ identity keeper ──▶ exchange ──▶ access keeper ──┬─▶ server ──▶ any process
//! one attempt    one JWT kept        one POST      one access    ├─▶ sdk_files ─▶ unmodified wandb, weave
//! per call       fresh               per call      token kept    └─▶ proxy ──▶ any W&B client, any version
//!                                                  fresh
//! ```
//!
//! # Layout
//!
//! Imports point up only.
//!
//! | level | modules |
//! |---|---|
//! | 0 words | [`accept`] [`api`] [`atomic_file`] [`backoff`] [`clock`] [`duration`] [`env`] [`error`] [`http`] [`output`] [`paths`] [`process`] [`prompt`] [`redact`] [`setup_args`] [`signals`] [`start_lock`] [`token`] |
//! | 1 stages | [`provider`], [`exchange`], [`oidc`], [`secrets`] |
//! | 2 keeper | [`keeper`], [`profile`] |
//! | 3 edges | [`server`], [`sdk_files`], [`proxy`], [`login`], [`doctor`] |
//! | 4 wiring | [`config`], [`daemon`] |
//! | beside | [`client`], [`cli`], [`sandbox`] |

pub mod accept;
pub mod api;
pub mod atomic_file;
pub mod backoff;
pub mod blocking;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod duration;
pub mod env;
pub mod error;
pub mod exchange;
pub mod feed;
pub mod foreign_text;
pub mod http;
pub mod json;
pub mod keeper;
pub mod login;
pub mod netrc;
pub mod network;
pub mod oidc;
pub mod output;
pub mod paths;
pub mod private_file;
pub mod process;
pub mod profile;
pub mod prompt;
pub mod provider;
pub mod proxy;
pub mod read_file;
pub mod redact;
pub mod sandbox;
pub mod sdk_files;
pub mod secrets;
pub mod server;
pub mod setup_args;
pub mod signals;
pub mod spelling;
pub mod start_lock;
pub mod token;
