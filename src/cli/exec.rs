//! `wandb-cred exec`: becomes a command whose W&B credentials stay fresh.
//!
//! If no daemon answers, it starts one that lives as long as the command: in a batch job or a CI step, nobody has to
//! start or stop anything.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::process;

use super::command_error::{CommandError, Outcome};
use super::need::NeedArg;
use super::profile::ProfileArg;
use super::{job, job_wide, login, private_daemon};
use crate::client::Client;
use crate::env::Env;
use crate::error::Exit;

/// Run a command with W&B credentials that stay fresh
#[derive(clap::Args)]
#[command(override_usage = "wandb-cred exec [OPTIONS] -- CMD [ARGS]...", long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArg,
    #[command(flatten)]
    need: NeedArg,
    /// In a Slurm job: give all nodes of the job the token that is got here, by one exchange
    #[arg(long)]
    job: bool,
    /// The command to run, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    let (program, arguments) = args.command.split_first().expect("clap requires one");
    let mut command = process::Command::new(program);
    command.args(arguments);

    if args.job && !job_wide::is_within(env) {
        let serving = job_wide::begin(&args.profile, &args.need, env)?;
        command.env("WANDB_CRED_SOCKET", &serving.socket);
        command.envs(job::variables(&serving.into())?).env_remove(job::REMOVED_VARIABLE);
        return Err(become_command(command, program));
    }
    let client = private_daemon::find_or_start(env)?;
    if client.socket() != Client::find(env)?.socket() {
        // So that a wandb-cred inside the command finds the same daemon.
        command.env("WANDB_CRED_SOCKET", client.socket());
    }
    // The process stays the same when it becomes the command, so the job ends with the command.
    let register = || job::register_own(&client, &args.profile, env);
    let (job, connection) = match register() {
        Ok(job) => job,
        Err(error) => {
            login::offer(&client, error, env)?;
            register()?
        }
    };
    args.need.check(&client, &job.profile)?;
    command.envs(job::variables(&job)?).env_remove(job::REMOVED_VARIABLE);

    if let Some(connection) = &connection {
        rustix::io::fcntl_setfd(connection, rustix::io::FdFlags::empty()).map_err(|error| {
            CommandError::new(Exit::System, format!("cannot hand the connection on: {error}"))
        })?;
    }
    Err(become_command(command, program))
}

/// Returns only if it cannot.
fn become_command(mut command: process::Command, program: &OsStr) -> CommandError {
    let error = command.exec();
    let exit = if error.kind() == ErrorKind::NotFound { Exit::NotFound } else { Exit::NotExecutable };
    CommandError::new(exit, format!("cannot run {}: {error}", program.display()))
}

const DETAILS: &str = "\
Run a command with an environment in which an unmodified W&B SDK (wandb 0.19.11 or
later, weave) uses the daemon's credentials, however long it runs.

It sets WANDB_IDENTITY_TOKEN_FILE, WANDB_CREDENTIALS_FILE and WANDB_BASE_URL, removes
WANDB_API_KEY, and becomes the command: same process, same signals, same exit code. The
daemon keeps the two files fresh until that process ends.

If no daemon runs, as in a batch job or a CI step, it starts one that ends with the
command.

With --job, in a Slurm job, one exchange serves all nodes: it starts a daemon on each
that is given access tokens by the one here, and waits until each has one. The paths
are the same everywhere, so a plain srun within the command works.";

const EXAMPLES: &str = "Examples:
  wandb-cred exec -- python train.py
  wandb-cred exec --profile eval -- torchrun --nproc-per-node 8 train.py
  wandb-cred exec --job -- srun python train.py           one exchange for all nodes of a Slurm job
  wandb-cred exec --need 72h -- ./three-day-job.sh        fails now, not on the second night

The exit code is that of the command. If the command cannot be started, it is one of those
of wandb-cred, 127 if the command does not exist, or 126 if it cannot be run.";
