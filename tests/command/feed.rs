//! `feed` and `exec --job`, as far as one machine without Slurm shows them. `tests/daemon/feed.rs` and
//! `tests/peers/slurm/test_feed.py` show the rest.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::TOKEN;
use crate::fake_daemon::{Answer, FakeDaemon, bare, of, on, on_answer, ran};

const PROBLEM: &str = r#"{"type":"needs-login","title":"T","status":403,"detail":"profile work: sign in","next":"wandb-cred login"}"#;

#[test]
fn what_goes_wrong_at_the_start_ends_feed() {
    let daemon = FakeDaemon::start(vec![on("GET /v1/token", 403, PROBLEM)]);
    let ran = daemon.run(&["feed"]);
    assert_eq!((ran.code, ran.out.as_str()), (77, ""));
    assert_eq!(ran.err, "wandb-cred: profile work: sign in\n  next: wandb-cred login\n");
}

#[test]
fn feed_ends_quietly_without_a_reader() {
    let follow = on_answer("GET /v1/token?newer_than", Answer::Hang);
    let daemon = FakeDaemon::start(vec![follow, on("GET /v1/token", 200, TOKEN)]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = daemon.command(&["feed"]);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().expect("starts");
    drop(command);
    let ran = of(child.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn feed_ends_with_the_process_that_it_is_for() {
    let follow = on_answer("GET /v1/token?newer_than", Answer::Hang);
    let daemon = FakeDaemon::start(vec![follow, on("GET /v1/token", 200, TOKEN)]);
    let mut job = Command::new("sleep").arg("600").spawn().expect("starts");
    let mut command = daemon.command(&["feed", "--lifetime-of", &job.id().to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    assert_eq!(line.trim_end(), TOKEN);
    assert!(child.try_wait().expect("a child").is_none(), "it goes on");
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    let ran = of(child.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(daemon.run(&["feed", "--lifetime-of", "4194399"]).code, 64);
}

#[test]
fn a_whole_job_needs_slurm() {
    let home = tempfile::tempdir().expect("temp dir");
    let outside = ran(&mut bare(home.path(), &["exec", "--job", "--", "true"]));
    assert_eq!(outside.code, 69);
    assert!(outside.err.starts_with("wandb-cred: SLURM_JOB_ID is not set"), "{}", outside.err);
    for arguments in [&["feed", "--job", "7"][..], &["exec", "--job", "--", "/bin/true"]] {
        let mut command = bare(home.path(), arguments);
        let without = ran(command.env("SLURM_JOB_ID", "7").env("PATH", "/nonexistent"));
        assert_eq!((without.code, without.out.as_str()), (69, ""), "{arguments:?}");
        assert!(without.err.starts_with("wandb-cred: there is no srun in PATH"), "{}", without.err);
    }
    for job in ["../x", "", "7.1", "777777777777777777777"] {
        let refused = ran(&mut bare(home.path(), &["feed", "--job", job]));
        assert_eq!(refused.code, 64, "{job}: {}", refused.err);
    }
}

/// A stand-in for srun that does what its script says.
fn srun(home: &Path, script: &str) -> String {
    let path = home.join("srun");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
    format!("{}:{}", home.display(), std::env::var("PATH").expect("PATH"))
}

fn in_a_job(daemon: &FakeDaemon, path: &str, nodes: &str, arguments: &[&str]) -> Command {
    let mut command = daemon.command(arguments);
    command.env("PATH", path).env("SLURM_JOB_ID", "7").env("SLURM_JOB_NUM_NODES", nodes);
    command
}

const SERVING: &str = r#"{"node":"NODE","socket":"/tmp/x/job-7/s","profile":"work","base_url":"https://api.wandb.ai","identity_token_file":"/tmp/x/i","credentials_file":"/tmp/x/c"}"#;

#[test]
fn exec_runs_the_command_when_every_node_has_a_token_and_says_goodbye_after_it() {
    let follow = on_answer("GET /v1/token?newer_than", Answer::Hang);
    let daemon = FakeDaemon::start(vec![follow, on("GET /v1/token", 200, TOKEN)]);
    let home = tempfile::tempdir().expect("temp dir");
    let said = home.path().join("said");
    let script = format!(
        "echo \"$@\" >{0}.args\nread -r first\necho '{1}'\necho chatter\necho '{2}'\n\
         read -r last\nprintf '%s\\n%s\\n' \"$first\" \"$last\" >{0}.new\nmv {0}.new {0}",
        said.display(),
        SERVING.replace("NODE", "n1"),
        SERVING.replace("NODE", "n2")
    );
    let path = srun(home.path(), &script);
    // Nothing that was started beside the command is a child of it.
    let shell = "read -r children </proc/$$/task/$$/children
                 echo $WANDB_IDENTITY_TOKEN_FILE $WANDB_CREDENTIALS_FILE $WANDB_CRED_SOCKET ${WANDB_API_KEY-none} $children";
    let mut command = in_a_job(&daemon, &path, "2", &["exec", "--job", "--", "sh", "-c", shell]);
    let ran = ran(command.env("WANDB_API_KEY", "secret"));
    assert_eq!((ran.code, ran.out.as_str()), (0, "/tmp/x/i /tmp/x/c /tmp/x/job-7/s none\n"), "{}", ran.err);
    let goodbye = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        said.exists()
    });
    assert!(goodbye, "not within 10 s");
    assert_eq!(std::fs::read_to_string(&said).expect("there"), format!("{TOKEN}\n{{\"end\":true}}\n"));
    let arguments = std::fs::read_to_string(home.path().join("said.args")).expect("there");
    for wanted in ["--jobid=7", "--nodes=2", "--overlap", "--input=all", "wandb-credd run --feed -"] {
        assert!(arguments.contains(wanted), "{wanted}: {arguments}");
    }
    assert!(!arguments.contains("wb_at"), "a token in an argument list");
}

#[test]
fn a_step_that_ends_before_all_nodes_are_ready_is_an_error() {
    let follow = on_answer("GET /v1/token?newer_than", Answer::Hang);
    let daemon = FakeDaemon::start(vec![follow, on("GET /v1/token", 200, TOKEN)]);
    let home = tempfile::tempdir().expect("temp dir");
    let path = srun(home.path(), &format!("echo '{SERVING}'; echo no such account >&2; exit 3"));
    let ran = ran(&mut in_a_job(&daemon, &path, "2", &["exec", "--job", "--", "echo", "started"]));
    assert_eq!((ran.code, ran.out.as_str()), (75, ""));
    assert!(ran.err.starts_with("no such account\nwandb-cred: the feeding step ended before"), "{}", ran.err);
    assert!(ran.err.contains("exit status: 3"), "{}", ran.err);
}
