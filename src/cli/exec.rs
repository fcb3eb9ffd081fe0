//! `wandb-cred exec`: becomes a command whose W&B credentials stay fresh.
//!
//! Where no daemon answers, it brings one that lives as long as the command: in a batch job or a CI step nobody
//! has to start or stop anything.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

use clap::{ArgMatches, Command};

use super::failure::{Exit, Failure};
use super::{Outcome, Verb, daemon_binary, job, login, need, profile};
use crate::client::Client;
use crate::env::Env;
use crate::error::{Error, Stage};
use crate::paths;

pub(super) const VERB: Verb =
    Verb { name: "exec", about: "Run a command with W&B credentials that stay fresh", args, run };

#[derive(clap::Args)]
struct Args {
    #[command(flatten)]
    profile: profile::Choice,
    #[command(flatten)]
    need: need::Need,
    /// The command to run, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command)
        .override_usage("wandb-cred exec [OPTIONS] -- CMD [ARGS]...")
        .long_about(DETAILS)
        .after_help(EXAMPLES)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let (program, arguments) = args.command.split_first().expect("clap requires one");
    let mut command = process::Command::new(program);
    command.args(arguments);

    let mut client = Client::find(env)?;
    if !client.is_running(PATIENCE) {
        let socket = bring_daemon(env, &client)?;
        // So that a wandb-cred inside finds the same daemon.
        command.env("WANDB_CRED_SOCKET", &socket);
        client = Client::at(socket);
    }
    // The process stays the same when it becomes the command, so the job ends with the command.
    let register = || job::register(&client, &args.profile, process::id(), env);
    let job = match register() {
        Ok(job) => job,
        Err(error) => {
            login::offer(&client, error, env)?;
            register().map_err(|error| Failure::of(error, env))?
        }
    };
    args.need.check(&client, &job.profile, env)?;
    command.envs(job::variables(&job)?).env_remove(job::UNSET);

    let error = command.exec();
    let exit = if error.kind() == ErrorKind::NotFound { Exit::NotFound } else { Exit::NotExecutable };
    Err(Failure::new(exit, format!("cannot run {}: {error}", program.display())))
}

/// The daemon that answers, or one that ends with this process.
pub(super) fn daemon(env: &Env) -> Result<Client, Failure> {
    let client = Client::find(env)?;
    if client.is_running(PATIENCE) {
        return Ok(client);
    }
    bring_daemon(env, &client).map(Client::at)
}

/// Starts a daemon that ends with this process (and so with the command), and gives its socket.
fn bring_daemon(env: &Env, missing: &Client) -> Result<PathBuf, Failure> {
    let runtime = missing.socket().parent().unwrap_or(Path::new("/"));
    if env.var("WANDB_CRED_SOCKET").is_none() || !runtime.exists() {
        paths::private_dir(runtime)?;
    }
    sweep(runtime);
    let folder = fresh_folder(runtime)?;
    let socket = folder.join("wandb-cred.sock");
    let program = daemon_binary::find(env);
    let status = process::Command::new(&program)
        .args(["run", "--background", "--lifetime-of", &process::id().to_string()])
        .env("WANDB_CRED_SOCKET", &socket)
        // Its log goes where the command's errors go, so it speaks only when something is wrong.
        .env("WANDB_CRED_LOG", env.var("WANDB_CRED_LOG").unwrap_or_else(|| "warn".to_owned()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let failure = match status {
        Ok(status) if status.success() => return Ok(socket),
        // It has said on stderr what is wrong.
        Ok(status) => match status.code() {
            Some(code @ 64..=78) => Failure::silent(code as u8),
            _ => Failure::new(Exit::Unavailable, format!("wandb-credd ended at once: {status}")),
        },
        Err(error) => daemon_binary::failure(&program, &error)
            .because(format!("no daemon answers at {}", missing.socket().display())),
    };
    let _ = std::fs::remove_dir_all(folder);
    Err(failure)
}

fn fresh_folder(runtime: &Path) -> Result<PathBuf, Failure> {
    let pid = process::id();
    // The number may be taken: by a job in another container that shares the folder, or by a leftover.
    for attempt in 0..100 {
        let folder =
            runtime.join(if attempt == 0 { format!("exec-{pid}") } else { format!("exec-{pid}-{attempt}") });
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(Stage::Files, &folder, &error).into()),
        }
    }
    Err(Failure::new(Exit::TryLater, format!("{} is full of exec-{pid} folders", runtime.display())))
}

/// Removes what daemons of earlier commands left that were killed before they could tidy up: tokens.
///
/// Dead is where the socket exists and refuses. Process numbers would not do, since containers that share the
/// folder do not see each other's processes.
fn sweep(runtime: &Path) {
    let Ok(entries) = std::fs::read_dir(runtime) else { return };
    for folder in entries.flatten() {
        if folder.file_name().to_string_lossy().starts_with("exec-")
            && let Err(error) = UnixStream::connect(folder.path().join("wandb-cred.sock"))
            && error.kind() == ErrorKind::ConnectionRefused
        {
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// To find out whether a daemon is there.
const PATIENCE: Duration = Duration::from_secs(10);

const DETAILS: &str = "\
Run a command with an environment in which an unmodified W&B SDK (wandb from 0.19.11,
weave) uses the daemon's credentials, however long it runs.

It sets WANDB_IDENTITY_TOKEN_FILE, WANDB_CREDENTIALS_FILE and WANDB_BASE_URL, removes
WANDB_API_KEY, and becomes the command: same process, same signals, same exit code. The
daemon keeps the two files fresh until that process ends.

Where no daemon runs, as in a batch job or a CI step, it starts one that ends with the
command.";

const EXAMPLES: &str = "Examples:
  wandb-cred exec -- python train.py
  wandb-cred exec --profile eval -- torchrun --nproc-per-node 8 train.py
  wandb-cred exec --need 72h -- ./three-day-job.sh        fails now, not on the second night

Exit codes are the command's own; before it starts, those of wandb-cred, 127 if the
command does not exist, and 126 if it cannot be run.";
