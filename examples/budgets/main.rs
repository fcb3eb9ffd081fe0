//! The budgets of the project, measured against the floors and the peers in one run, and printed as a table.
//!
//! `scripts/bench` builds everything and calls this. Speeds are ratios of medians taken turn by turn, because
//! absolute figures drift on shared machines. `--short` measures only what repeats exactly (instructions,
//! system calls, exchanges, wake-ups, sizes) and fails when one is over its ceiling: that is what CI runs.
//!
//! # Layout
//!
//! | module | measures |
//! |---|---|
//! | `server` | requests/s, CPU and latency of the daemon against `floor`; a read while a renewal hangs |
//! | `floor` | a bare hyper server that answers the same bytes |
//! | `load` | the load generator: raw epoll, so that it is not what is measured |
//! | `command` | whole runs of the command, against other programs; instructions and system calls |
//! | `peers` | `git credential-cache`, `ssh-add` and `oidc-token` |
//! | `memory` | resident memory, wake-ups, the start |
//! | `storm` | 512 processes at a cold daemon |
//! | `scene` | a sandbox and daemons to measure |
//! | `tls` | TLS in front of the sandbox |
//! | `table` | rows and verdicts |

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use scene::Scene;
use table::Table;

mod command;
mod floor;
mod load;
mod memory;
mod peers;
mod scene;
mod server;
mod storm;
mod table;
mod tls;

#[derive(Parser)]
struct Args {
    /// The folder of the packaged programs
    #[arg(long, default_value = "target/package")]
    bin: PathBuf,
    /// Only what repeats exactly, a miss of which fails the run
    #[arg(long)]
    short: bool,
    /// Only the tables of these names: server, hang, command, memory, start, storm, sizes, counts
    #[arg(long)]
    only: Vec<String>,
    /// Be the floor: answer on this socket with the bytes of that file
    #[arg(long, num_args = 2, value_names = ["SOCKET", "BODY"], hide = true)]
    floor: Option<Vec<PathBuf>>,
}

type Result<T = ()> = anyhow::Result<T>;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some([socket, body]) = args.floor.as_deref() {
        floor::serve(socket, std::fs::read(body)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let scene = Scene::set(args.bin.canonicalize()?)?;
    let mut table = Table::default();
    // Watches while the rest is measured.
    let idle = wanted("memory").then(|| memory::Idle::start(&scene)).transpose()?;
    if !args.short {
        if wanted("server") {
            server::loads(&scene, &mut table)?;
        }
        if wanted("hang") {
            server::hang(&scene, &mut table)?;
        }
        if wanted("command") {
            command::runs(&scene, &mut table)?;
        }
        if wanted("start") {
            memory::start(&scene, &mut table)?;
        }
    }
    if wanted("storm") {
        storm::cold(&scene, &mut table)?;
    }
    if wanted("counts") {
        command::counts(&scene, &mut table)?;
    }
    if let Some(idle) = idle {
        idle.finish(args.short, &mut table)?;
    }
    if wanted("sizes") {
        table.sizes(&scene, args.short)?;
    }
    print!("{table}");
    Ok(if table.any_exact_missed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
