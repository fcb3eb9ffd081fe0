//! Measures the project's budgets and prints them as a table.
//!
//! `scripts/bench` builds everything and calls this. Speeds are ratios of medians, measured in turns, because
//! absolute figures drift on shared machines. `--short` measures only what repeats exactly (exchanges, wake-ups,
//! system calls), and that alone can fail the run: this is what CI uses.
//!
//! # Layout
//!
//! | module | measures |
//! |---|---|
//! | `server` | requests/s of the daemon against `baseline`; a cached read while a renewal hangs |
//! | `baseline` | a hyper server that answers the same bytes, with and without the daemon's timeouts and limits |
//! | `load` | the load generator: raw epoll, so that it is not what is measured |
//! | `command` | whole runs of the command against other programs; its system calls |
//! | `peers` | `git credential-cache`, `ssh-add` and `oidc-token` |
//! | `proxy` | the loopback proxy beside nginx |
//! | `idle` | resident memory, wake-ups |
//! | `start` | the time from start to first answer |
//! | `storm` | 512 processes and a daemon without a token |
//! | `setup` | a sandbox, and daemons to measure |
//! | `tls` | TLS in front of the sandbox |
//! | `table` | rows and verdicts |

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use baseline::Baseline;
use setup::Setup;
use table::Table;

mod baseline;
mod command;
mod idle;
mod load;
mod peers;
mod proxy;
mod server;
mod setup;
mod start;
mod storm;
mod table;
mod tls;

#[derive(Parser)]
struct Args {
    /// The folder of the programs
    #[arg(long, default_value = "target/bench")]
    bin: PathBuf,
    /// Measure only what repeats exactly
    #[arg(long)]
    short: bool,
    /// Measure only this: server, hang, proxy, command, start, storm, system-calls or idle
    #[arg(long)]
    only: Vec<String>,
    /// Serve as a baseline: answer on this socket with the bytes of that file
    #[arg(long, num_args = 2, value_names = ["SOCKET", "BODY"], requires = "baseline", hide = true)]
    serve: Option<Vec<PathBuf>>,
    #[arg(long, value_enum, hide = true)]
    baseline: Option<Baseline>,
}

type Result<T = ()> = anyhow::Result<T>;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let (Some([socket, body]), Some(baseline)) = (args.serve.as_deref(), args.baseline) {
        baseline.serve(socket, std::fs::read(body)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let setup = Setup::new(args.bin.canonicalize()?)?;
    let mut table = Table::default();
    if !args.short {
        if wanted("command") {
            command::times(&setup, &mut table)?;
        }
        if wanted("server") {
            server::throughput(&setup, &mut table)?;
        }
        if wanted("hang") {
            server::hang(&setup, &mut table)?;
        }
        if wanted("proxy") {
            proxy::beside_nginx(&setup, &mut table)?;
        }
        if wanted("start") {
            start::time(&setup, &mut table)?;
        }
    }
    if wanted("storm") {
        storm::exchanges(&setup, &mut table)?;
    }
    if wanted("system-calls") {
        command::system_calls(&setup, &mut table)?;
    }
    if wanted("idle") {
        idle::wakeups_and_memory(&setup, args.short, &mut table)?;
    }
    print!("{table}");
    Ok(if table.any_exact_missed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
