//! The daemon that `exec --private` brings with it, and the one that runs before anything is configured.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::setup::{COMMAND, DAEMON, Home, Sandbox, ran, until};

#[test]
fn execs_own_daemon_and_its_folder_end_with_the_command() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let go = home.path("go");
    let script = format!(
        "cat \"$WANDB_IDENTITY_TOKEN_FILE\" \"$WANDB_CREDENTIALS_FILE\" > /dev/null && touch {0}.ready; \
         while [ ! -e {0} ]; do sleep 0.02; done",
        go.display()
    );
    let mut command = home.program(COMMAND, &["exec", "--private", "--", "sh", "-c", &script]);
    let mut job = command.stdout(Stdio::null()).spawn().expect("starts");
    until("the job has its files", 20, || home.path("go.ready").exists().then_some(()));

    let folder = home.path(&format!("run/exec-{}", job.id()));
    assert_eq!(folder.metadata().expect("its folder").permissions().mode() & 0o777, 0o700);
    assert!(folder.join("profiles/work/credentials.json").exists());
    fs::write(&go, "").expect("written");
    assert!(job.wait().expect("ends").success());
    until("the folder is gone", 20, || (!folder.exists()).then_some(()));
    let left: Vec<_> = fs::read_dir(home.path("run")).expect("there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_daemon_without_configuration_takes_up_what_init_writes() {
    let home = Home::new("");
    let jwt = home.write("jwt", "a.b.c");
    // At the usual place, where it may be missing.
    let daemon = home.daemon_of(home.program(DAEMON, &["run"]).env_remove("WANDB_CRED_CONFIG"));
    assert!(daemon.get("/v1/status").json()["config"].is_null());
    let mut init = home.program(COMMAND, &["init"]);
    let init = ran(init.env_remove("WANDB_CRED_CONFIG").env("WANDB_IDENTITY_TOKEN_FILE", &jwt));
    assert_eq!(init.code, Some(0), "{}", init.err);
    let status = daemon.get("/v1/status").json();
    assert_eq!(status["config"].as_str(), home.path(".config/wandb-cred/config.toml").to_str());
    assert_eq!(status["profiles"][0]["provider"], "file");
}
