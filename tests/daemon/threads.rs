//! The system gives the daemon no thread: an attempt fails, and the daemon goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::setup::{DAEMON, Home, Sandbox, is_root};

/// `nobody`, since root has no such limit.
const USER: u32 = 65534;

#[test]
fn a_limit_on_processes_fails_attempts_and_not_the_daemon() {
    if !is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let jwt = home.write("jwt", &sandbox.control().mint(""));
    home.write_config(&sandbox.file_profile("work", &jwt));
    let program = home.path("wandb-credd");
    fs::copy(DAEMON, &program).expect("copied");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    for path in [home.path(""), home.config(), jwt] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).expect("chown");
    }
    let mut command = home.program(program.to_str().expect("text"), &["run"]);
    let mut daemon = home.daemon_of(command.uid(USER).gid(USER).current_dir("/"));
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid"));
    let limit = |most| prlimit(pid, Resource::Nproc, Rlimit { current: Some(most), maximum: Some(10_000) });
    limit(1).expect("limited");
    let answer = daemon.get("/v1/token?wait=1");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(daemon.is_running());
    limit(10_000).expect("allowed again");
    daemon.token("wait=30");
}
