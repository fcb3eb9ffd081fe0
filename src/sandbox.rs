//! A stand-in identity provider and W&B server on loopback, for demos, our tests and users' own CI.
//!
//! `wandb-cred-sandbox serve` runs both halves on one port; `mint` asks a running one for a JWT, which is
//! what a `command` provider needs; `demo` shows the whole program at work. Nothing in here is imported by
//! the daemon or the command.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | [`server`] | the listener, the routing, [`server::Sandbox`] for tests written in Rust |
//! | `idp` | the signing key, discovery, JWKS, minting |
//! | `exchange` | `POST /oidc/token`: what a W&B server checks, in its words |
//! | `issuers` | the keys of trusted issuers, found by discovery |
//! | `tokens` | the access tokens given out |
//! | `wandb` | GraphQL, `file_stream`, uploads: the smallest server a real run needs |
//! | `weave` | the trace server's endpoints |
//! | `faults` | what goes wrong on request |
//! | `stats` | what was seen, for tests to compare |
//! | `control` | `/sandbox/...`, through which tests steer and look |
//! | `reply` | answers, broken ones included |
//! | `demo` | the README's one command |
//! | `signals` | Ctrl-C and its kin, as something to wait for |

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use url::{Url, form_urlencoded};

use crate::clock::Clock;
use server::{Config, Sandbox, Settings};
use signals::Signals;

#[cfg(test)]
mod checks;
mod control;
mod demo;
mod exchange;
mod faults;
mod idp;
mod issuers;
mod reply;
pub mod server;
mod signals;
mod stats;
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
    let done = match arguments.command {
        Command::Serve(serve) => serve.run(),
        Command::Mint(mint) => mint.run(),
        Command::Demo(demo) => demo.run(),
    };
    match done {
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
    /// Life of the access tokens it gives out
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    token_life: u64,
    /// Life of the JWTs it mints
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    jwt_life: u64,
    /// Audience it accepts, once for each; the first is what it mints
    #[arg(long, value_name = "AUDIENCE", default_value = "sandbox")]
    audience: Vec<String>,
    /// Subject it accepts, once for each; the first is what it mints
    #[arg(long, value_name = "SUBJECT", default_value = "dev@example.com")]
    subject: Vec<String>,
    /// Another issuer whose JWTs it accepts, once for each
    #[arg(long, value_name = "URL")]
    trust_issuer: Vec<String>,
    /// How long each exchange takes
    #[arg(long, value_name = "MS", default_value_t = 0)]
    exchange_delay: u64,
    /// Live so far ahead of this machine's clock, or behind it: what a wrong clock here looks like
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_ahead: i64,
    /// Write the base URL into this file once it answers
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

impl Serve {
    fn run(self) -> anyhow::Result<()> {
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
            let signals = Signals::install()?;
            sandbox.run(async move { drop(signals.recv().await) }).await;
            Ok(())
        })
    }
}

#[derive(Args)]
struct Mint {
    /// The sandbox, as its `ready` line says it
    #[arg(long)]
    url: Url,
    #[arg(long)]
    audience: Option<String>,
    #[arg(long)]
    subject: Option<String>,
    /// Life of the JWT
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

/// A blocking GET of a small text: a `mint` starts thousands of times in a test and needs no runtime.
fn get(base: &Url, path: &str) -> anyhow::Result<String> {
    let host = base.host_str().with_context(|| format!("{base} names no host"))?;
    let port = base.port_or_known_default().with_context(|| format!("{base} names no port"))?;
    let mut stream =
        TcpStream::connect((host, port)).with_context(|| format!("no sandbox answers at {base}"))?;
    stream.set_read_timeout(Some(GET_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).with_context(|| format!("reading from {base}"))?;
    let answer = String::from_utf8(answer).with_context(|| format!("{base} sent no text"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{base} broke off"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{base} answered with status {status}");
    }
    let announced = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if announced.is_some_and(|length| length != body.len()) {
        bail!("{base} broke off");
    }
    Ok(body.to_owned())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

/// `EX_USAGE` of sysexits.
const EX_USAGE: u8 = 64;

const GET_TIMEOUT: Duration = Duration::from_secs(30);

/// A JWT or a status, not more.
const MAX_ANSWER: u64 = 1024 * 1024;
