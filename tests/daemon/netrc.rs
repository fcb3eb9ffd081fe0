//! An entry of the W&B server in `~/.netrc`, which a command under `exec` does not get to see.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::setup::{COMMAND, Home, Sandbox, until};

const NETRC: &str =
    "machine pypi.corp login a password planted-b\nmachine 127.0.0.1 login user password planted-key\n";

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| entries.flatten().count())
}

#[test]
fn exec_shows_its_command_a_copy_without_the_server_s_entry_and_removes_it() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let original = home.write(".netrc", NETRC);
    let copies = home.path(".local/state/wandb-cred/netrc");
    let script = format!("cat \"$NETRC\"; stat -c %a \"$NETRC\"; {COMMAND} exec -- true");
    let runs = |how: &[&str]| {
        let told = home.run(&[&["exec"], how, &["--", "sh", "-c", &script]].concat());
        assert_eq!(told.code, Some(0), "{}", told.err);
        assert_eq!(told.out, "machine pypi.corp login a password planted-b\n600\n");
        // Once, and not by the exec inside.
        assert_eq!(told.err.matches("psf/requests#3929").count(), 1, "{}", told.err);
        assert!(told.err.contains("an entry for 127.0.0.1") && !told.err.contains("planted"), "{}", told.err);
        until("the copy is gone", 20, || (entries(&copies) == 0).then_some(()));
    };
    runs(&["--private"]);
    let _daemon = home.daemon();
    runs(&[]);
    assert_eq!(fs::read_to_string(original).expect("there"), NETRC, "the original stays as it is");
}

#[test]
fn a_file_that_concerns_another_server_is_left_alone() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let _daemon = home.daemon();
    for text in ["machine pypi.corp login a password b\n", "machine 127.0.0.1 login a what b\n"] {
        home.write(".netrc", text);
        let told = home.run(&["exec", "--", "sh", "-c", "echo ${NETRC-unset}"]);
        assert_eq!((&*told.out, &*told.err), ("unset\n", ""));
    }
    // Through the proxy requests go to a port of loopback, by another name than the entry's server.
    home.write(".netrc", NETRC);
    let told = home.run(&["exec", "--proxy", "--", "sh", "-c", "echo ${NETRC-unset}"]);
    assert_eq!((&*told.out, &*told.err), ("unset\n", ""));
}

#[test]
fn a_command_without_room_for_a_copy_starts_with_a_warning() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let _daemon = home.daemon();
    home.write(".netrc", NETRC);
    // Where the copies would be is a file.
    fs::create_dir_all(home.path(".local/state/wandb-cred")).expect("made");
    home.write(".local/state/wandb-cred/netrc", "");
    let told = home.run(&["exec", "--", "sh", "-c", "echo ${NETRC-unset}"]);
    assert_eq!((told.code, &*told.out), (Some(0), "unset\n"));
    assert!(told.err.contains("delete that entry"), "{}", told.err);
    let path = home.path(".netrc");
    assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
}
