//! `exec` and `env`: the environment that an unmodified SDK needs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fake_daemon::{FakeDaemon, bare, of, on, program, ran};

const JOB: &str = r#"{"profile":"work","base_url":"https://api.wandb.ai","identity_token_file":"/run/it's/identity-token","credentials_file":"/run/it's/credentials.json"}"#;

fn job_daemon() -> FakeDaemon {
    FakeDaemon::start(vec![on("POST /v1/jobs", 200, JOB)])
}

#[test]
fn exec_becomes_the_command_with_the_sdks_environment() {
    let daemon = job_daemon();
    let child = daemon
        .command(&["exec", "--", "sh", "-c", "echo pid $$; env | grep WANDB_ | sort; exit 7"])
        .env("WANDB_API_KEY", "secret")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let pid = child.id();
    let ran = of(child.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.err.as_str()), (7, ""));
    let socket = daemon.socket();
    assert_eq!(
        ran.out,
        format!(
            "pid {pid}\nWANDB_BASE_URL=https://api.wandb.ai\nWANDB_CREDD=/nonexistent/wandb-credd\n\
             WANDB_CREDENTIALS_FILE=/run/it's/credentials.json\nWANDB_CRED_PROFILE=work\nWANDB_CRED_SOCKET={}\n\
             WANDB_IDENTITY_TOKEN_FILE=/run/it's/identity-token\n",
            socket.display()
        )
    );
    assert_eq!(daemon.requests(), [format!(r#"POST /v1/jobs {{"profile":null,"pid":{pid}}}"#)]);
}

#[test]
fn exec_passes_arguments_as_they_are() {
    let daemon = job_daemon();
    for arguments in [
        &["exec", "--profile", "a", "printf", "%s,", "--profile", "-x", ""][..],
        &["exec", "-p", "a", "--", "printf", "%s,", "--profile", "-x", ""],
    ] {
        assert_eq!(daemon.run(arguments).out, "--profile,-x,,");
    }
    assert!(daemon.requests().iter().all(|request| request.contains(r#""profile":"a""#)));
}

#[test]
fn a_command_that_cannot_run_ends_as_in_sh() {
    let daemon = job_daemon();
    let ran = daemon.run(&["exec", "--", "no-such-command-here"]);
    assert_eq!(ran.code, 127);
    let said = "wandb-cred: cannot run no-such-command-here: there is no such program\n  next: ";
    assert!(ran.err.starts_with(said), "{}", ran.err);
    assert!(daemon.requests().is_empty(), "nothing is waited for");
    assert_eq!(daemon.run(&["exec", "--", "/etc/passwd"]).code, 126);
}

#[test]
fn exec_does_not_start_the_command_without_credentials() {
    let problem = r#"{"type":"needs-login","title":"T","status":401,"detail":"profile work: sign in","next":"wandb-cred login"}"#;
    let daemon = FakeDaemon::start(vec![on("POST /v1/jobs", 401, problem)]);
    let ran = daemon.run(&["exec", "--", "echo", "started"]);
    assert_eq!((ran.code, ran.out.as_str()), (77, ""));
    assert_eq!(ran.err, "wandb-cred: profile work: sign in\n  next: wandb-cred login\n");
}

#[test]
fn sigpipe_kills_the_command_as_usual() {
    let daemon = job_daemon();
    let ran = daemon.run(&["exec", "--", "bash", "-c", "trap -p PIPE; yes | head -1; echo ${PIPESTATUS[0]}"]);
    assert_eq!(ran.out, "y\n141\n");
}

/// A stand-in for `wandb-credd run --background`: puts the fake daemon's socket where it was told to.
fn stand_in(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("wandb-credd");
    program(&path, script);
    path
}

fn exec_alone(home: &Path, credd: &Path, arguments: &[&str]) -> Command {
    let mut command = bare(home, arguments);
    command.env("WANDB_CREDD", credd);
    command
}

#[test]
fn exec_brings_a_private_daemon_where_none_runs() {
    let daemon = job_daemon();
    let home = daemon.folder.path();
    let script = format!(
        "echo \"$@\" $WANDB_CRED_LOG >{0}/arguments; ln -s {1} \"$WANDB_CRED_SOCKET\"",
        home.display(),
        daemon.socket().display()
    );
    let credd = stand_in(home, &script);
    let child = exec_alone(
        home,
        &credd,
        &[
            "exec",
            "--private",
            "--",
            "sh",
            "-c",
            "echo $WANDB_CRED_SOCKET; stat -c %a ${WANDB_CRED_SOCKET%/*}",
        ],
    )
    .stdout(std::process::Stdio::piped())
    .spawn()
    .expect("starts");
    let pid = child.id();
    let ran = of(child.wait_with_output().expect("ends"));
    let folder = home.join(format!("run/wandb-cred/exec-{pid}"));
    assert_eq!(ran.out, format!("{}/wandb-cred.sock\n700\n", folder.display()));
    let arguments = std::fs::read_to_string(home.join("arguments")).expect("the stand-in ran");
    assert_eq!(arguments, format!("run --background --lifetime-of {pid}\n"));
}

#[test]
fn a_daemon_that_does_not_start_ends_exec_with_its_code() {
    let home = tempfile::tempdir().expect("temp dir");
    let credd = stand_in(home.path(), "echo 'wandb-credd: line 3: unknown key' >&2; exit 78");
    let failed = ran(&mut exec_alone(home.path(), &credd, &["exec", "--", "echo", "started"]));
    assert_eq!((failed.code, failed.out.as_str()), (78, ""));
    assert_eq!(failed.err, "wandb-credd: line 3: unknown key\n");
    let left = std::fs::read_dir(home.path().join("run/wandb-cred")).expect("made").count();
    assert_eq!(left, 0, "a folder is left behind");

    let missing = ran(&mut bare(home.path(), &["exec", "--", "echo", "started"]));
    assert_eq!((missing.code, missing.out.as_str()), (69, ""));
    assert!(
        missing.err.contains("no daemon answers at")
            && missing.err.contains("cannot run /nonexistent/wandb-credd")
    );
}

#[test]
fn exec_removes_what_killed_daemons_left_and_nothing_else() {
    let daemon = job_daemon();
    let home = daemon.folder.path();
    let runtime = home.join("run/wandb-cred");
    for name in ["exec-1", "exec-2", "exec-3", "exec-4", "exec-5", "profiles"] {
        std::fs::create_dir_all(runtime.join(name)).expect("made");
    }
    std::fs::set_permissions(&runtime, PermissionsExt::from_mode(0o700)).expect("chmod");
    for dead in ["exec-1", "exec-4", "exec-5"] {
        let socket = runtime.join(dead).join("wandb-cred.sock");
        drop(std::os::unix::net::UnixListener::bind(socket).expect("bound"));
    }
    // A daemon that has bound its socket, and does not listen yet, holds its lock already.
    let starting = std::fs::File::create(runtime.join("exec-4/.lock")).expect("made");
    starting.lock().expect("locked");
    std::fs::File::create(runtime.join("exec-5/.lock")).expect("made");
    let _alive =
        std::os::unix::net::UnixListener::bind(runtime.join("exec-2/wandb-cred.sock")).expect("bound");
    let credd = stand_in(home, &format!("ln -s {} \"$WANDB_CRED_SOCKET\"", daemon.socket().display()));
    assert_eq!(ran(&mut exec_alone(home, &credd, &["exec", "--private", "true"])).code, 0);
    let exists = |name: &str| runtime.join(name).exists();
    assert_eq!(
        ["exec-1", "exec-2", "exec-3", "exec-4", "exec-5", "profiles"].map(exists),
        [false, true, true, true, false, true]
    );
}

#[test]
fn env_is_read_back_by_a_shell() {
    let daemon = job_daemon();
    let script = format!(
        r#"WANDB_API_KEY=x; eval "$({} env)"; echo "$$"; printf '%s|' "$WANDB_IDENTITY_TOKEN_FILE" "$WANDB_BASE_URL" "${{WANDB_API_KEY-none}}"; env | grep -c WANDB_CREDENTIALS_FILE"#,
        env!("CARGO_BIN_EXE_wandb-cred")
    );
    let output = Command::new("sh").args(["-c", &script]).env("WANDB_CRED_SOCKET", daemon.socket()).output();
    let ran = of(output.expect("sh runs"));
    let (pid, rest) = ran.out.split_once('\n').expect("two lines");
    assert_eq!(rest, "/run/it's/identity-token|https://api.wandb.ai|none|1\n");
    assert_eq!(daemon.requests(), [format!(r#"POST /v1/jobs {{"profile":null,"pid":{pid}}}"#)]);
}

#[test]
fn env_speaks_other_shells_and_of_other_processes() {
    let daemon = job_daemon();
    let fish = daemon.run(&["env", "--shell", "fish", "--pid", "4242"]).out;
    assert!(fish.starts_with("set -gx WANDB_IDENTITY_TOKEN_FILE '/run/it\\'s/identity-token';\n"), "{fish}");
    assert!(fish.ends_with("set -e WANDB_API_KEY;\n"), "{fish}");
    let csh = daemon.run(&["env", "--shell", "csh"]).out;
    assert!(csh.starts_with("setenv WANDB_IDENTITY_TOKEN_FILE '/run/it'\\''s/identity-token';\n"), "{csh}");
    assert!(daemon.requests()[0].contains(r#""pid":4242"#));
    assert_eq!(daemon.run(&["env", "--pid", "0"]).code, 64);
}

#[test]
fn what_cannot_be_run_is_told_from_what_is_not_there() {
    let home = tempfile::tempdir().expect("temp dir");
    let credd = home.path().join("wandb-credd");
    std::fs::write(&credd, "#!/bin/sh\n").expect("written");
    let denied = ran(&mut exec_alone(home.path(), &credd, &["exec", "--", "true"]));
    assert_eq!(denied.code, 69, "{}", denied.err);
    assert!(denied.err.contains(&format!("next: chmod +x {}", credd.display())), "{}", denied.err);

    let daemon = job_daemon();
    let script = daemon.folder.path().join("train");
    program(&script, "exit 0");
    let edited = Command::new("sed").args(["-i", "1s|.*|#!/nonexistent/python|"]).arg(&script).status();
    assert!(edited.expect("sed").success());
    let train = script.to_str().expect("UTF-8");
    let failed = ran(&mut daemon.command(&["exec", "--", train]));
    assert_eq!(failed.code, 127, "{}", failed.err);
    assert!(failed.err.contains("the interpreter that it names is not there"), "{}", failed.err);
}
