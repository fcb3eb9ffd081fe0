//! `wandb-cred exec`: becomes a command whose W&B credentials stay fresh.
//!
//! If no daemon answers, it starts one that all jobs of its kind share: in a batch job or a CI step, nobody has to start or
//! stop anything.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, ExitCode};

use super::command_error::CommandError;
use super::need::NeedArg;
use super::on_demand::{self, Daemon};
use super::profile::ProfilesArg;
use super::{job, job_wide, login, old_sdk, private_daemon};
use crate::api::{Job, PROFILE_SEPARATOR};
use crate::client::Client;
use crate::env::Env;
use crate::error::Exit;
use crate::output;

mod first_process;
mod netrc;

/// Run a command with W&B credentials that stay fresh
#[derive(clap::Args)]
#[command(override_usage = "wandb-cred exec [OPTIONS] -- CMD [ARGS]...", long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    profiles: ProfilesArg,
    #[command(flatten)]
    need: NeedArg,
    /// Start the command at once, with or without a token
    #[arg(long, conflicts_with = "job")]
    best_effort: bool,
    /// Use the loopback proxy, not the SDK files: for W&B clients of any version
    #[arg(long)]
    proxy: bool,
    /// If no daemon runs, start one that nobody else uses
    #[arg(long)]
    private: bool,
    /// In a Slurm job: give all nodes of the job the token that is got here, by one exchange
    #[arg(long, conflicts_with = "proxy")]
    job: bool,
    /// The command to run, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args, env: &Env) -> Result<ExitCode, CommandError> {
    if cfg!(target_os = "linux") && process::id() == 1 {
        return first_process::run();
    }
    let (program, arguments) = args.command.split_first().expect("clap requires one");
    let mut command = process::Command::new(program);
    command.args(arguments);
    // Before anything is waited for.
    if !is_there(program, env) {
        return Err(not_there(program));
    }
    let offline = offline_mode(env);
    if args.job && offline.is_none() && !job_wide::is_within(env) {
        let profile = args.profiles.single().ok_or_else(|| {
            CommandError::new(Exit::Usage, "--job feeds the nodes with the tokens of one profile")
                .hint("name one --profile, or leave out --job")
        })?;
        let serving = job_wide::begin(&profile, &args.need, env)?;
        command.env("WANDB_CRED_SOCKET", &serving.socket);
        let job = serving.into();
        apply(&mut command, job::variables(&job, env)?);
        let _inherited = netrc::hide(&mut command, &job, env);
        return Err(become_command(command, program));
    }
    let registered = match register(args, args.best_effort || offline.is_some(), env) {
        Ok(registered) => Some(registered),
        Err(error) if args.best_effort || offline.is_some() => {
            let why = offline.as_deref().unwrap_or("--best-effort");
            // Where the daemon could not start, it has said why.
            let problem =
                Some(error.message()).filter(|message| !message.is_empty()).unwrap_or("no daemon runs");
            let text = format!("wandb-cred: {problem}; starting the command without credentials ({why})");
            output::eprint_line(&output::printable(&text));
            None
        }
        Err(error) => return Err(error),
    };
    let mut inherited = None;
    if let Some(Registered { daemon, job, connection }) = &registered {
        apply(&mut command, job::variables(job, env)?);
        inherited = netrc::hide(&mut command, job, env);
        if let Some(hint) = old_sdk::hint(env).filter(|_| job.proxy.is_none()) {
            output::eprint_line(&output::printable(&hint));
        }
        if daemon.on_demand {
            // So that a wandb-cred inside the command finds the same daemon.
            command.env("WANDB_CRED_SOCKET", daemon.client.socket());
        }
        if let Some(connection) = connection {
            rustix::io::fcntl_setfd(connection, rustix::io::FdFlags::empty()).map_err(|error| {
                CommandError::new(Exit::System, format!("cannot hand the connection on: {error}"))
            })?;
        }
    }
    let failed = become_command(command, program);
    drop(inherited);
    Err(failed)
}

fn apply(command: &mut process::Command, variables: job::Variables) {
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Returns only if it cannot.
fn become_command(mut command: process::Command, program: &OsStr) -> CommandError {
    let error = command.exec();
    if error.kind() == ErrorKind::NotFound {
        // The kernel says so too where the program is there, but not what its first line or its header asks for.
        if Path::new(program).symlink_metadata().is_ok() {
            let message =
                format!("cannot run {}: the interpreter that it names is not there", program.display());
            return CommandError::new(Exit::NotFound, message).hint(format!("head -1 {}", program.display()));
        }
        return not_there(program);
    }
    CommandError::new(Exit::NotExecutable, format!("cannot run {}: {error}", program.display())).hint(
        format!(
            "chmod +x {0}, or name the program that runs it: wandb-cred exec -- sh {0}",
            program.display()
        ),
    )
}

/// Whether there is such a program at all, as execvp(3) looks for it.
fn is_there(program: &OsStr, env: &Env) -> bool {
    if program.as_encoded_bytes().contains(&b'/') {
        return Path::new(program).exists();
    }
    let Some(path) = env.var("PATH") else { return true };
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

fn not_there(program: &OsStr) -> CommandError {
    let shown = program.display();
    let next = match program.as_encoded_bytes().contains(&b'/') {
        true => format!("ls {shown}"),
        false => format!("check the spelling, or PATH: command -v {shown}"),
    };
    CommandError::new(Exit::NotFound, format!("cannot run {shown}: there is no such program")).hint(next)
}

/// What there is once the daemon knows of this process.
struct Registered {
    daemon: Daemon,
    job: Job,
    /// Must be inherited by the command: its end is the end of the job.
    connection: Option<UnixStream>,
}

/// The process stays the same when it becomes the command, so the job ends with the command.
fn register(args: &Args, at_once: bool, env: &Env) -> Result<Registered, CommandError> {
    let wanted = job::Wanted { profiles: &args.profiles, proxy: args.proxy, wait: !at_once };
    let register = |client: &Client| job::register_own(client, &wanted, env);
    let (daemon, answer) = if args.private && !Client::usual(env)?.accepts() {
        let client = private_daemon::start(env)?;
        let answer = register(&client);
        (Daemon { client, on_demand: true }, answer)
    } else {
        on_demand::ask(env, register)?
    };
    let (job, connection) =
        if at_once { answer? } else { login::or_offer(&daemon.client, answer, env, register)? };
    if job.pending {
        let profile = &job.profile;
        let text = format!(
            "wandb-cred: profile {profile} has no token yet; the command starts now, and gets one when there is one"
        );
        output::eprint_line(&output::printable(&text));
    } else {
        for profile in job.profile.split(PROFILE_SEPARATOR) {
            args.need.check(&daemon.client, profile)?;
        }
    }
    Ok(Registered { daemon, job, connection })
}

/// The SDK's word for a run that sends nothing (wandb 0.31.0, `wandb_settings.py`), as a person set it.
fn offline_mode(env: &Env) -> Option<String> {
    let mode = env.var("WANDB_MODE")?;
    ["offline", "dryrun", "disabled"].contains(&mode.as_str()).then(|| format!("WANDB_MODE={mode}"))
}

const DETAILS: &str = "\
Run a command with an environment in which an unmodified W&B SDK (wandb 0.19.11 or
later, weave) uses the daemon's credentials, however long it runs.

It sets WANDB_IDENTITY_TOKEN_FILE, WANDB_CREDENTIALS_FILE and WANDB_BASE_URL, removes
WANDB_API_KEY, and becomes the command: same process, same signals, same exit code. The
daemon keeps the two files fresh until that process ends.

If no daemon runs, as in a batch job or a CI step, it starts one. All commands of the
same job step, identity and configuration on this machine share it, and it ends after
the last of them. WANDB_CRED_SHARE=NAME shares one among all that set it; --private
shares none.

With --job, in a Slurm job, one exchange serves all nodes: it starts a daemon on each
that is given access tokens by the one here, and waits until each has one. The paths
are the same everywhere, so a plain srun within the command works.

With several --profile, of different servers, the SDK finds a token for each of them, and
WANDB_BASE_URL is that of the first. Their identity token file holds no JWT, so that no
server is shown what is meant for another; each token must have more than 300 s of life.

With --proxy (or `proxy = true` in the profile), the command gets WANDB_BASE_URL and
WANDB_API_KEY of a proxy in the daemon instead, with a key that is good for this job on
this machine. Every W&B client can use it, and a revoked token costs no data.

What does not pass by itself, such as a token file that is missing, ends it at once. In a
batch job, a CI job or a pod it waits for that for 30 s: what writes the file may have
been started at the same moment.

With WANDB_MODE=offline, dryrun or disabled, and with --best-effort, the command does
not wait for a token.";

const EXAMPLES: &str = "Examples:
  wandb-cred exec -- python train.py
  wandb-cred exec --profile eval -- torchrun --nproc-per-node 8 train.py
  wandb-cred exec --job -- srun python train.py           one exchange for all nodes of a Slurm job
  wandb-cred exec -p cloud -p lab -- python sync.py       two servers at once
  wandb-cred exec --proxy -- python old.py                any SDK, and code that reads WANDB_API_KEY
  wandb-cred exec --need 72h -- ./three-day-job.sh        fails now, not on the second night

The exit code is that of the command. If the command cannot be started, it is one of those
of wandb-cred, 127 if the command does not exist, or 126 if it cannot be run.";
