//! A stand-in identity provider and W&B server on loopback, for demos, our tests and users' own CI.
//!
//! `wandb-cred-sandbox serve` runs both halves on one port. `mint` asks a running sandbox for a JWT, for use with a
//! `command` provider. `demo` shows the whole program at work. The daemon and the command import nothing from here.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | [`server`] | the listener, the routing, [`server::Sandbox`] for tests written in Rust |
//! | `idp` | the signing key, discovery, JWKS, minting |
//! | `exchange` | `POST /oidc/token`: what a W&B server checks, and how it words a refusal |
//! | `issuers` | the keys of trusted issuers, found by discovery |
//! | `tokens` | the access tokens it has issued |
//! | `wandb` | GraphQL, `file_stream`, uploads: the smallest server a real run needs |
//! | `files` | what was uploaded, for clients that ask for it |
//! | `artifacts` | versions of artifacts, up and down |
//! | `sweeps` | what a sweep's agent is told |
//! | `weave` | the trace server's endpoints |
//! | `faults` | faults that tests ask for |
//! | `stats` | what the sandbox has seen, for tests to compare |
//! | `control` | `/sandbox/...`, through which tests control and inspect the sandbox |
//! | `reply` | responses, including broken ones |
//! | `demo` | the README's one command |

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use url::{Url, form_urlencoded};

use crate::clock::Clock;
use crate::signals;
use server::{Config, Sandbox, Settings};

mod artifacts;
#[cfg(test)]
mod checks;
mod control;
mod demo;
mod exchange;
mod faults;
mod files;
mod idp;
mod issuers;
mod reply;
pub mod server;
mod stats;
mod sweeps;
mod tokens;
mod wandb;
mod weave;

pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let result = match arguments.command {
        Command::Serve(serve) => serve.run(),
        Command::Mint(mint) => mint.run(),
        Command::Demo(demo) => demo.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wandb-cred-sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command line, for tests of what pages and messages name.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// A stand-in identity provider and W&B server on loopback.
#[derive(Parser)]
#[command(name = "wandb-cred-sandbox", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the identity provider and the W&B server on one loopback port
    Serve(Serve),
    /// Print a JWT signed by a running sandbox
    Mint(Mint),
    /// Show the daemon serving tokens, with no account and no configuration
    Demo(demo::Demo),
}

#[derive(Args)]
struct Serve {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Lifetime of the access tokens it issues
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    token_life: u64,
    /// Lifetime of the JWTs it mints
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    jwt_life: u64,
    /// Audience to accept; may be repeated, and the first is the one that it mints
    #[arg(long, value_name = "AUDIENCE", default_value = "sandbox")]
    audience: Vec<String>,
    /// Subject to accept; may be repeated, and the first is the one that it mints
    #[arg(long, value_name = "SUBJECT", default_value = "dev@example.com")]
    subject: Vec<String>,
    /// Another issuer to trust; may be repeated
    #[arg(long, value_name = "URL")]
    trust_issuer: Vec<String>,
    /// How long each exchange takes
    #[arg(long, value_name = "MS", default_value_t = 0)]
    exchange_delay: u64,
    /// Run this far ahead of this machine's clock (behind it if negative), as if that clock were wrong
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_ahead: i64,
    /// Write the base URL to this file once the sandbox is listening
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

impl Serve {
    fn run(self) -> anyhow::Result<()> {
        let signals = signals::install()?;
        runtime()?.block_on(async {
            let config = Config {
                port: self.port,
                audiences: self.audience,
                subjects: self.subject,
                trusted: self.trust_issuer,
                settings: Settings {
                    token_life: self.token_life,
                    jwt_life: self.jwt_life,
                    exchange_delay_ms: self.exchange_delay,
                    ..Settings::default()
                },
            };
            let sandbox = Sandbox::bind(config, Clock::system_ahead(self.clock_ahead)).await?;
            if let Some(path) = &self.ready_file {
                std::fs::write(path, sandbox.url()).with_context(|| path.display().to_string())?;
            }
            println!("ready {}", sandbox.url());
            let mut signals = signals.listen()?;
            let signal = async {
                signals.next().await;
            };
            sandbox.run(signal).await;
            Ok(())
        })
    }
}

#[derive(Args)]
struct Mint {
    /// The sandbox's URL, as its `ready` line shows it
    #[arg(long)]
    url: Url,
    #[arg(long)]
    audience: Option<String>,
    #[arg(long)]
    subject: Option<String>,
    /// Lifetime of the JWT
    #[arg(long, value_name = "SECONDS")]
    life: Option<u64>,
}

impl Mint {
    fn run(self) -> anyhow::Result<()> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let life = self.life.map(|life| life.to_string());
        for (key, value) in [("audience", self.audience), ("subject", self.subject), ("life", life)] {
            if let Some(value) = value {
                query.append_pair(key, &value);
            }
        }
        println!("{}", get(&self.url, &format!("/mint?{}", query.finish()))?);
        Ok(())
    }
}

/// A blocking GET of a short text: a test starts thousands of `mint`s, and none needs a runtime.
fn get(base: &Url, path: &str) -> anyhow::Result<String> {
    let host = base.host_str().with_context(|| format!("{base} has no host"))?;
    let port = base.port_or_known_default().with_context(|| format!("{base} has no port"))?;
    let mut stream =
        TcpStream::connect((host, port)).with_context(|| format!("no sandbox answers at {base}"))?;
    stream.set_read_timeout(Some(GET_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    let read = stream.take(MAX_RESPONSE).read_to_end(&mut response);
    read.with_context(|| format!("cannot read the response of {base}"))?;
    let response = String::from_utf8(response).with_context(|| format!("{base} did not send UTF-8"))?;
    let cut_off = || format!("the response of {base} is cut off");
    let (head, body) = response.split_once("\r\n\r\n").with_context(cut_off)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{base} answered with status {status}");
    }
    let content_length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if content_length.is_some_and(|length| length != body.len()) {
        bail!(cut_off());
    }
    Ok(body.to_owned())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// `EX_USAGE` of sysexits.
const EX_USAGE: u8 = 64;

const GET_TIMEOUT: Duration = Duration::from_secs(30);

/// Far more than a JWT needs.
const MAX_RESPONSE: u64 = 1024 * 1024;
