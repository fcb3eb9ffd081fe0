//! Folders that are not private.

use std::fs;
use std::os::unix::fs::symlink;

use super::chmod;
use crate::setup::{Home, Sandbox};

#[test]
fn a_runtime_folder_that_is_open_or_a_symlink_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let run = home.path("run");
    fs::create_dir(&run).expect("made");
    chmod(&run, 0o750);
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains(&format!("chmod 700 {}", run.display())), "{}", refused.err);
    fs::rename(&run, home.path("elsewhere")).expect("renamed");
    chmod(&home.path("elsewhere"), 0o700);
    symlink(home.path("elsewhere"), &run).expect("linked");
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains("symlink") && refused.err.contains("WANDB_CRED_SOCKET"), "{}", refused.err);
    fs::remove_file(&run).expect("removed");
    fs::write(&run, "a file").expect("written");
    assert_eq!(home.refused().code, Some(78));
    assert_eq!(fs::read_to_string(&run).expect("there"), "a file");
}

#[test]
fn an_sdk_folder_that_is_no_private_folder_is_told_and_the_socket_serves_all_the_same() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    fs::create_dir_all(home.path("run/profiles")).expect("made");
    chmod(&home.path("run"), 0o700);
    fs::create_dir(home.path("elsewhere")).expect("made");
    symlink(home.path("elsewhere"), home.path("run/profiles/work")).expect("linked");
    let daemon = home.daemon();
    assert!(daemon.token("").starts_with("wb_at_"));
    let job = home.run(&["exec", "--", "true"]);
    assert_eq!(job.code, Some(75), "{}", job.err);
    assert!(job.err.contains("profiles/work") && job.err.contains("symlink"), "{}", job.err);
    assert!(
        fs::read_dir(home.path("elsewhere")).expect("there").next().is_none(),
        "written through a symlink"
    );
}
