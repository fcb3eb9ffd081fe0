//! Old kernels, other PID namespaces, homes and paths as nobody expects them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::setup::{COMMAND, DAEMON, Home, Sandbox, ran, until};

/// Runs its arguments as on a kernel before 5.1, which does not know the system calls from number 424 on (the same on all
/// architectures), or, with "forbid", in a container that does not permit pidfd_open.
const OLD_KERNEL: &str = r#"
import ctypes, os, struct, sys
unknown = sys.argv[1] == "unknown"
code = lambda op, jt, jf, k: struct.pack("HBBI", op, jt, jf, k)
program = code(0x20, 0, 0, 0) + (code(0x35, 0, 1, 424) if unknown else code(0x15, 0, 1, 434)) + code(0x06, 0, 0, 0x00050000 | (38 if unknown else 1)) + code(0x06, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(program)
fprog = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(fprog), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn serves_on_an_old_kernel(how: &str) {
    if !Command::new("python3").args(["-c", "import ctypes"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: no python3 to play an old kernel");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let old = |program: &str, arguments: &[&str]| {
        home.program("python3", &[&["-c", OLD_KERNEL, how, program], arguments].concat())
    };
    let mut daemon = home.daemon_of(&mut old(DAEMON, &["run"]));
    let mut job = home.program(COMMAND, &["exec", "--", "sleep", "600"]).spawn().expect("starts");
    until("the job is known", 20, || (daemon.profile("work")["jobs"] == 1).then_some(()));
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    until("the job is over", 10, || (daemon.profile("work")["jobs"] == 0).then_some(()));
    daemon.signal(Signal::TERM);
    assert!(daemon.ended(10).success());
    let private = ran(&mut old(COMMAND, &["exec", "--", "true"]));
    assert_eq!(private.code, Some(0), "{}", private.err);
}

#[test]
fn everything_works_on_a_kernel_without_the_calls_that_came_after_5_0() {
    serves_on_an_old_kernel("unknown");
}

#[test]
fn everything_works_where_a_container_forbids_pidfd_open() {
    serves_on_an_old_kernel("forbid");
}

fn may_make_pid_namespaces() -> bool {
    let may = Command::new("unshare").args(["-rpf", "--mount-proc", "true"]).output();
    let may = may.is_ok_and(|output| output.status.success());
    if !may {
        println!("skipped: this user may not make PID namespaces");
    }
    may
}

#[test]
fn a_job_in_a_container_is_known_by_the_hosts_number_and_ends_with_it() {
    if !may_make_pid_namespaces() {
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    // In there it is process 1, which out here is another one.
    let inside = ["-rpf", "--mount-proc", "--kill-child", COMMAND, "exec", "--", "sleep", "600"];
    let mut job = home.program("unshare", &inside).spawn().expect("starts");
    until("the job is known", 20, || (daemon.profile("work")["jobs"] == 1).then_some(()));
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    until("the job is over", 10, || (daemon.profile("work")["jobs"] == 0).then_some(()));
    let script = format!("eval \"$({COMMAND} env)\" && test -s \"$WANDB_IDENTITY_TOKEN_FILE\"; echo $?");
    let shell = ran(&mut home.program("unshare", &["-rpf", "--mount-proc", "sh", "-c", &script]));
    assert_eq!(shell.out, "0\n", "{}", shell.err);
}

#[test]
fn a_job_that_the_daemon_cannot_see_lasts_as_long_as_its_connection() {
    if !may_make_pid_namespaces() {
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let inside = ["-rpf", "--mount-proc", "--kill-child", DAEMON, "run"];
    let daemon = home.daemon_of(&mut home.program("unshare", &inside));
    let mut job = home.program(COMMAND, &["exec", "--", "sleep", "600"]).spawn().expect("starts");
    until("the job is known", 20, || (daemon.profile("work")["jobs"] == 1).then_some(()));
    let env = home.run(&["env"]);
    assert_eq!(env.code, Some(64), "{}", env.err);
    assert!(env.err.contains("PID namespace") && env.err.contains("wandb-cred exec"), "{}", env.err);
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    until("the job is over", 10, || (daemon.profile("work")["jobs"] == 0).then_some(()));
}

#[test]
fn a_socket_that_is_removed_with_its_folder_comes_back() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut daemon = home.daemon();
    let token = daemon.token("");
    let body = format!("{{\"pid\":{}}}", std::process::id());
    assert_eq!(daemon.ask("POST", "/v1/jobs", &body).expect("answered").status, 200);
    for _ in 0..2 {
        fs::remove_dir_all(home.path("run")).expect("removed");
        until("it serves again", 20, || {
            daemon.try_get("/v1/token").ok().filter(|answer| answer.text().contains(&token))
        });
        until("the files are there again", 20, || {
            let files = [home.path("run/jobs.json"), home.sdk_file("work", "credentials.json")];
            files.iter().all(|file| file.exists()).then_some(())
        });
    }
    assert_eq!(home.refused().code, Some(69), "a second daemon is refused");
    daemon.signal(Signal::TERM);
    assert!(daemon.ended(10).success());
    assert!(!home.socket().exists());
}

#[test]
fn a_home_that_is_not_unicode_is_used_all_the_same() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let odd = home.path("").join(OsStr::from_bytes(b"j\xf6rg"));
    fs::create_dir_all(odd.join(".config/wandb-cred")).expect("made");
    fs::write(odd.join(".config/wandb-cred/config.toml"), sandbox.profile("work")).expect("written");
    let mut command = home.program(COMMAND, &["exec", "--", "true"]);
    let done = ran(command.env("HOME", &odd).env_remove("WANDB_CRED_CONFIG"));
    assert_eq!(done.code, Some(0), "{}", done.err);
}

#[test]
fn exec_has_a_socket_that_fits_wherever_the_usual_one_is() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    for length in [90, 106, 107] {
        let folder = home.path("");
        let socket = folder.join("x".repeat(length - folder.as_os_str().len() - 2)).join("s");
        assert_eq!(socket.as_os_str().len(), length);
        let exec = |socket: &std::path::Path| {
            let mut command = home.program(COMMAND, &["exec", "--", "true"]);
            ran(command.env("WANDB_CRED_SOCKET", socket).env("TMPDIR", home.path("")))
        };
        let done = exec(&socket);
        assert_eq!(done.code, Some(0), "{length}: {}", done.err);
        let long = exec(&socket.with_file_name("x".repeat(120 - length)));
        assert_eq!(long.code, Some(0), "{}", long.err);
        let mut status = home.program(COMMAND, &["status"]);
        let refused = ran(status
            .env("WANDB_CRED_SOCKET", socket.with_file_name("x".repeat(120 - length)))
            .env("HOME", "/nonexistent"));
        assert_eq!(refused.code, Some(78), "{}", refused.err);
        assert!(
            refused.err.contains("bytes long") && refused.err.contains("WANDB_CRED_SOCKET"),
            "{}",
            refused.err
        );
    }
}

#[test]
fn a_private_daemon_keeps_no_lock_no_pipe_and_no_folder_of_its_caller() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let script = format!(
        "for i in 1 2 3 4 5; do flock -n lock {COMMAND} exec -- true && flock -n lock true || exit 1; done"
    );
    let locked = ran(home.program("sh", &["-c", &script]).current_dir(home.path("")));
    assert_eq!(locked.code, Some(0), "{}", locked.err);

    // A relative path in the environment means what it meant where the command was typed.
    let script = format!("{COMMAND} status --json; read -r line");
    let mut command = home.program(COMMAND, &["exec", "--", "sh", "-c", &script]);
    command.current_dir(home.path("")).env("WANDB_CRED_CONFIG", "config.toml");
    let mut job = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut status = String::new();
    let mut out = std::io::BufReader::new(job.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut out, &mut status).expect("a line");
    let status: serde_json::Value = serde_json::from_str(&status).expect("json");
    let proc = format!("/proc/{}", status["pid"]);
    assert_eq!(fs::read_link(format!("{proc}/cwd")).expect("ours").to_str(), Some("/"));
    drop(job.stdin.take());
    job.wait().expect("ends");
}
