//! Paths that lead to something other than a regular file.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::setup::{DAEMON, Home, Sandbox, now, until};

fn fifo(home: &Home, name: &str) -> PathBuf {
    let path = home.path(name);
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().expect("mkfifo").success());
    path
}

/// The other profile serves, and this one says at once what the path is.
fn is_told(path: &Path, what: &str, home: &Home, sandbox: &Sandbox) {
    home.write_config(&format!("{}{}", sandbox.profile("good"), sandbox.file_profile("bad", path)));
    let daemon = home.daemon();
    let start = now();
    let answer = daemon.get("/v1/token?profile=bad");
    let said = answer.text();
    assert!(now() - start < Duration::from_secs(4), "took {:?}", now() - start);
    assert_ne!(answer.status, 200);
    assert!(said.contains(&path.display().to_string()) && said.contains(what), "{said}");
    assert!(daemon.token("profile=good").starts_with("wb_at_"));
}

#[test]
fn a_token_file_that_is_a_fifo_is_told_at_once() {
    let (sandbox, home) = (Sandbox::start(&[]), Home::new(""));
    is_told(&fifo(&home, "jwt"), "is a FIFO", &home, &sandbox);
}

#[test]
fn a_token_file_that_is_a_socket_is_told_at_once() {
    let (sandbox, home) = (Sandbox::start(&[]), Home::new(""));
    let _listener = UnixListener::bind(home.path("jwt")).expect("bound");
    is_told(&home.path("jwt"), "is a socket", &home, &sandbox);
}

#[test]
fn a_token_file_that_is_a_folder_is_told_at_once() {
    let (sandbox, home) = (Sandbox::start(&[]), Home::new(""));
    fs::create_dir(home.path("jwt")).expect("made");
    is_told(&home.path("jwt"), "is a folder", &home, &sandbox);
}

#[test]
fn a_token_file_without_end_is_told_at_once() {
    let (sandbox, home) = (Sandbox::start(&[]), Home::new(""));
    is_told(Path::new("/dev/zero"), "is a device", &home, &sandbox);
}

#[test]
fn a_configuration_that_becomes_a_fifo_stops_nothing() {
    let (sandbox, home) = (Sandbox::start(&[]), Home::new(""));
    home.write_config(&sandbox.profile("work"));
    let daemon = home.daemon();
    let token = daemon.token("");
    fs::remove_file(home.config()).expect("there");
    fifo(&home, "config.toml");
    daemon.signal(Signal::HUP);
    until("the daemon says no", 10, || daemon.log().contains("is a FIFO").then_some(()));
    assert_eq!(daemon.token(""), token);
}

#[test]
fn a_configuration_that_is_a_fifo_is_refused_at_once() {
    let home = Home::new("");
    fs::remove_file(home.config()).expect("there");
    let path = fifo(&home, "config.toml");
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains(&format!("{} is a FIFO", path.display())), "{}", refused.err);
}

#[test]
fn a_limit_on_open_files_that_is_too_low_is_refused_with_its_name() {
    let home = Home::new("");
    let mut shell = home.program("sh", &["-c", "ulimit -n 12; exec \"$0\" run", DAEMON]);
    let refused = crate::setup::ran(&mut shell);
    assert_eq!(refused.code, Some(71), "{}", refused.err);
    assert!(refused.err.contains("only 12 files") && refused.err.contains("ulimit -n"), "{}", refused.err);
}
