//! `wandb-cred env`: the SDK's environment for the calling shell.

use super::command_error::Outcome;
use super::profile::ProfilesArg;
use super::shell::Shell;
use super::{job, login, on_demand, ray};
use crate::client::Client;
use crate::env::Env;
use crate::error::Exit;
use crate::output;

/// Print the W&B environment variables for the calling shell
#[derive(clap::Args)]
#[command(long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    profiles: ProfilesArg,
    /// The shell that evaluates the output
    #[arg(long, short, value_enum, default_value_t = Shell::Sh)]
    shell: Shell,
    /// Use the loopback proxy, not the SDK files: for W&B clients of any version
    #[arg(long)]
    proxy: bool,
    /// The process that needs the credentials [default: the calling one]
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// Print the runtime environment for Ray instead, as JSON
    #[arg(long, conflicts_with_all = ["shell", "pid"])]
    ray: bool,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    if args.ray {
        output::print(&ray::runtime_env(&args.profiles, args.proxy, env)?)?;
        return Ok(Exit::Success);
    }
    // A shell runs `$(wandb-cred env)` as its own child, so the parent is the one that will use the files.
    let pid = args.pid.unwrap_or_else(std::os::unix::process::parent_id);
    let wanted = job::Wanted { profiles: &args.profiles, proxy: args.proxy, wait: true };
    let register = |client: &Client| job::register(client, &wanted, pid, env);
    let (daemon, job) = on_demand::ask(env, register)?;
    let job = login::or_offer(&daemon.client, job, env, register)?;
    let mut variables: Vec<_> =
        job::variables(&job, env)?.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if daemon.on_demand {
        let socket = daemon.client.socket().to_string_lossy().into_owned();
        variables.push(("WANDB_CRED_SOCKET".to_owned(), Some(socket)));
    }
    output::print(&args.shell.all(&variables))?;
    Ok(Exit::Success)
}

const DETAILS: &str = "\
Print shell commands that make every W&B program started from this shell use the
daemon's credentials.

The daemon keeps the files they name fresh until the shell ends. WANDB_API_KEY is unset,
because the W&B SDK does not accept it together with an identity token file.

With --proxy, they use a proxy in the daemon, with a key that is good until the shell
ends, and WANDB_API_KEY is that key.

In a pipeline or a wrapper script, the calling process may end early; use --pid $$
there. If no daemon runs, one is started, and ends after the shell.

With --ray, it prints what starts every worker of Ray by wandb-cred exec, with the Python
in PATH. Both must be at the same paths on all nodes.";

const EXAMPLES: &str = "Examples:
  eval \"$(wandb-cred env)\"                       sh, bash, zsh
  wandb-cred env --shell fish | source           fish
  eval `wandb-cred env --shell csh`              csh, tcsh
  wandb-cred env --shell powershell | Out-String | Invoke-Expression
  wandb-cred env --shell json                    for a notebook that runs: --pid of its kernel
  ray job submit --runtime-env-json \"$(wandb-cred env --ray)\" -- python train.py";
