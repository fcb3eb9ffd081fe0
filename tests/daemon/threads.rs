//! The system gives the daemon no thread: an attempt fails, and the daemon goes on.

use std::os::unix::process::CommandExt as _;

use crate::setup::{COMMAND, DAEMON, Home, Sandbox, is_root, ran};

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
    let program = home.copy_of(DAEMON);
    for path in [home.path(""), home.config(), jwt] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).expect("chown");
    }
    // The limit comes after the change of user: an exec right after such a change would count it.
    let mut command = home.program("prlimit", &["--nproc=1", program.to_str().expect("text"), "run"]);
    let mut daemon = home.daemon_of(command.uid(USER).gid(USER).current_dir("/"));
    let mut client = home.program(home.copy_of(COMMAND).to_str().expect("text"), &["token", "--wait", "1"]);
    let told = ran(client.uid(USER).gid(USER).current_dir("/"));
    assert_eq!(told.code, Some(75), "{}", told.err);
    assert!(told.err.contains("cannot read"), "{}", told.err);
    assert!(daemon.is_running());
}
