//! Every wrong configuration, file and token: what is said names the place and the next step, and the other
//! profiles go on.

mod configuration;
mod folders;
mod identity_token;
mod paths;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::setup::{DAEMON, Home, ran};

fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn an_unknown_option_of_the_daemon_is_wrong_usage() {
    wrong_usage(&["--frobnicate"]);
}

#[test]
fn an_unknown_subcommand_of_the_daemon_is_wrong_usage() {
    wrong_usage(&["serve"]);
}

#[test]
fn an_unknown_log_level_is_wrong_usage() {
    wrong_usage(&["run", "--log-level", "loud"]);
}

fn wrong_usage(arguments: &[&str]) {
    let told = ran(&mut Home::new("").program(DAEMON, arguments));
    assert_eq!((told.code, told.out.as_str()), (Some(64), ""), "{}", told.err);
}
