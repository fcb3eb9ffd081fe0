//! `feed --job`: a step on every node of a Slurm job, whose daemons read what is written here. srun carries it: it hands
//! its standard input to all of its tasks, and what they print comes back.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use super::ends::Ends;
use super::{Args, Follower};
use crate::api::Serving;
use crate::cli::command_error::{CommandError, Outcome};
use crate::cli::{daemon_program, job_wide};
use crate::clock::Clock;
use crate::env::Env;
use crate::error::Exit;
use crate::{duration, output, paths};

pub(super) fn run(job: &str, args: &Args, env: &Env) -> Outcome {
    if !job_wide::is_job(job) {
        return Err(CommandError::new(Exit::Usage, format!("`{job}` is not the number of a Slurm job")));
    }
    if job_wide::in_path("srun", env).is_none() {
        let message =
            "there is no srun in PATH: a whole job is fed by Slurm, from a machine that has its commands";
        return Err(CommandError::new(Exit::Unavailable, message));
    }
    let process = Ends::new(None, args.lifetime_of)?;
    let nodes = nodes(job, env, &process)?;
    let (mut follower, first) = Follower::begin(args, env)?;
    let mut step = Step::start(job, nodes, args.lifetime_of, env)?;
    let ends = Ends::new(step.stdin.as_ref().map(|stdin| stdin as _), args.lifetime_of)?;
    let _ = step.pass_on(&first);
    match step.ready(nodes, &process) {
        Ok(Some(serving)) => {
            output::print_line(serde_json::to_string(&serving).expect("the API's types always serialize"))?;
        }
        Ok(None) => {
            step.end();
            return Ok(Exit::Success);
        }
        Err(error) => {
            step.end();
            return Err(error);
        }
    }
    while let Some(line) = follower.next(&ends) {
        if step.pass_on(&line).is_err() {
            break;
        }
    }
    step.end();
    Ok(Exit::Success)
}

/// How many nodes the job has. Waits for a job that is still queued.
fn nodes(job: &str, env: &Env, process: &Ends) -> Result<u32, CommandError> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|nodes| *nodes > 0);
    if job_wide::job(env).as_deref() == Some(job) {
        let told = env.var("SLURM_JOB_NUM_NODES").or_else(|| env.var("SLURM_NNODES"));
        if let Some(nodes) = told.as_deref().and_then(number) {
            return Ok(nodes);
        }
    }
    let mut said = false;
    loop {
        let output =
            Command::new("squeue").args(["-h", "-j", job, "-o", "%T %D"]).stdin(Stdio::null()).output();
        let output = output
            .map_err(|error| CommandError::new(Exit::Unavailable, format!("cannot run squeue: {error}")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text.split_whitespace();
        match (words.next(), words.next().and_then(number)) {
            (Some("RUNNING" | "SUSPENDED"), Some(nodes)) => return Ok(nodes),
            (Some("PENDING" | "CONFIGURING" | "REQUEUED"), _) => {
                if !said {
                    output::eprint_line(&format!("wandb-cred: job {job} has not started; waiting for it"));
                }
                said = true;
            }
            _ => {
                let message = format!("there is no job {job} that runs or waits");
                return Err(CommandError::new(Exit::Unavailable, message).hint(format!("squeue --job {job}")));
            }
        }
        if !process.wait(None, QUEUE_POLL) {
            return Err(CommandError::silent(Exit::Success));
        }
    }
}

/// The feeding step.
struct Step {
    srun: Child,
    stdin: Option<ChildStdin>,
    /// What each node's daemon says when it serves its first token.
    serving: Receiver<Serving>,
    clock: Clock,
}

impl Step {
    fn start(job: &str, nodes: u32, process: Option<u32>, env: &Env) -> Result<Self, CommandError> {
        let failed = |error| CommandError::new(Exit::System, format!("cannot start srun: {error}"));
        // The daemons of one command may still be ending when the job's next one begins.
        let socket = paths::job_socket(job, process);
        let mut command = Command::new("srun");
        command
            .args([format!("--jobid={job}"), format!("--nodes={nodes}"), format!("--ntasks={nodes}")])
            .arg(format!("--export=ALL,WANDB_CRED_LOG=warn,WANDB_CRED_SOCKET={}", socket.display()))
            .args(STEP)
            .arg(daemon_program::find(env))
            .args(["run", "--feed", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for variable in FOR_STEPS {
            command.env_remove(variable);
        }
        let mut srun = command.spawn().map_err(failed)?;
        let (sender, serving) = mpsc::channel();
        let (stdin, stdout) = (srun.stdin.take(), srun.stdout.take());
        // It ends with srun, or with this process.
        std::thread::Builder::new()
            .name("ready".to_owned())
            .spawn(move || {
                let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
                for line in lines.map_while(Result::ok) {
                    if let Ok(serving) = serde_json::from_str(&line) {
                        let _ = sender.send(serving);
                    }
                }
            })
            .map_err(failed)?;
        Ok(Self { srun, stdin, serving, clock: Clock::system() })
    }

    fn pass_on(&mut self, line: &str) -> std::io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush()),
            None => Ok(()),
        }
    }

    /// Waits until every node serves a token. `None` if the process that this is for has ended meanwhile.
    fn ready(&mut self, nodes: u32, process: &Ends) -> Result<Option<Serving>, CommandError> {
        let began = self.clock.now().boot;
        let mut serving = BTreeMap::new();
        let mut said = Duration::ZERO;
        loop {
            match self.serving.recv_timeout(TICK) {
                Ok(one) => drop(serving.insert(one.node.clone(), one)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let ended =
                        self.srun.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                    let message =
                        format!("the feeding step ended before every node had a token: srun: {ended}");
                    return Err(CommandError::new(Exit::TryLater, message));
                }
            }
            if serving.len() >= nodes as usize {
                return Ok(serving.into_values().next());
            }
            if !process.wait(None, Duration::ZERO) {
                return Ok(None);
            }
            let waited = self.clock.now().boot.saturating_sub(began);
            let ready: Vec<_> = serving.keys().map(String::as_str).collect();
            let ready =
                format!("{} of {nodes} nodes have W&B credentials ({})", ready.len(), ready.join(", "));
            if waited > START_TIMEOUT {
                let message = format!("after {}, only {ready}", duration::text(waited.as_secs()));
                return Err(CommandError::new(Exit::TryLater, message).hint("squeue --steps"));
            }
            if waited.saturating_sub(said) > SAY {
                output::eprint_line(&format!("wandb-cred: {}", output::printable(&ready)));
                said = waited;
            }
        }
    }

    /// Has the nodes' daemons remove their files and end.
    fn end(&mut self) {
        let _ = self.pass_on(r#"{"end":true}"#);
        drop(self.stdin.take());
        let deadline = self.clock.now().boot + END_TIMEOUT;
        while self.clock.now().boot < deadline {
            if !matches!(self.srun.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(TICK / 10);
        }
        let _ = self.srun.kill();
        let _ = self.srun.wait();
    }
}

/// One small task on each node, beside everything that the job does with its resources; the end of one is not the end of
/// the others.
const STEP: [&str; 12] = [
    "--job-name=wandb-cred",
    "--overlap",
    "--ntasks-per-node=1",
    "--cpus-per-task=1",
    "--mem=0",
    "--gres=none",
    "--mpi=none",
    "--input=all",
    "--unbuffered",
    "--kill-on-bad-exit=0",
    "--wait=0",
    "--quiet",
];

/// What a batch job's environment says of its own steps, which this one is not.
const FOR_STEPS: [&str; 24] = [
    "SLURM_CPUS_PER_TASK",
    "SLURM_CPU_BIND",
    "SLURM_DISTRIBUTION",
    "SLURM_EXCLUSIVE",
    "SLURM_EXPORT_ENV",
    "SLURM_GPUS",
    "SLURM_GPUS_PER_NODE",
    "SLURM_GPUS_PER_TASK",
    "SLURM_GPU_BIND",
    "SLURM_HINT",
    "SLURM_MEM_BIND",
    "SLURM_MEM_PER_CPU",
    "SLURM_MEM_PER_GPU",
    "SLURM_MEM_PER_NODE",
    "SLURM_NPROCS",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_OVERCOMMIT",
    "SLURM_PROCID",
    "SLURM_RELATIVE",
    "SLURM_STEP_GRES",
    "SLURM_THREADS_PER_CORE",
    "SLURM_TRES_PER_TASK",
    "SLURM_UNBUFFEREDIO",
];

const TICK: Duration = Duration::from_millis(500);

/// How often a person is told what is waited for.
const SAY: Duration = Duration::from_secs(5);

/// For a step to start on every node, and each to have a token.
const START_TIMEOUT: Duration = Duration::from_secs(180);

const END_TIMEOUT: Duration = Duration::from_secs(15);

const QUEUE_POLL: Duration = Duration::from_secs(5);
