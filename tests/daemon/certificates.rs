//! A system without CA certificates: whatever needs none works, and https says what is missing.

use crate::setup::{DAEMON, Home, Sandbox};

fn with(variable: &str, path: &str) {
    with_fault(variable, path, "misconfigured");
}

fn with_fault(variable: &str, path: &str, kind: &str) {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let jwt = home.write("jwt", &sandbox.control().mint(""));
    let network = sandbox.file_profile("network", &jwt).replace(&sandbox.url, "https://127.0.0.1:1");
    home.write_config(&format!("{}{network}", sandbox.file_profile("work", &jwt)));
    let mut daemon = home.daemon_of(home.program(DAEMON, &["run"]).env(variable, path));
    assert!(daemon.token("profile=work").starts_with("wb_at_"));
    let refused = daemon.get("/v1/token?profile=network&wait=15");
    assert!(refused.status >= 500, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(problem["type"], kind, "{problem}");
    assert_eq!(problem["reason"]["code"], "no-certificates", "{problem}");
    assert_eq!(problem["reason"]["variable"], variable, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(path)), "{problem}");
    let doctor = daemon.get("/v1/doctor?profile=network").json();
    let findings = doctor["findings"].as_array().expect("findings");
    let server = findings.iter().find(|finding| finding["step"] == "server").expect("looked at");
    // As `token` ends with it.
    let exit = if kind == "misconfigured" { 78 } else { 75 };
    assert_eq!((&server["verdict"], &server["exit"]), (&"fail".into(), &exit.into()), "{server}");
    assert!(server["remedy"].as_str().is_some_and(|remedy| remedy.contains(variable)), "{server}");
    assert!(daemon.is_running() && daemon.token("profile=work").starts_with("wb_at_"));
}

#[test]
fn a_certificate_file_that_is_missing_stops_https_only() {
    with("SSL_CERT_FILE", "/nonexistent/ca.pem");
}

#[test]
fn a_certificate_file_that_holds_none_stops_https_only() {
    with("SSL_CERT_FILE", "/etc/hostname");
}

#[test]
fn a_certificate_file_that_is_a_device_stops_https_only() {
    with("SSL_CERT_FILE", "/dev/zero");
}

#[test]
fn a_certificate_folder_that_is_missing_stops_https_only() {
    with("SSL_CERT_DIR", "/nonexistent");
}

#[test]
fn a_certificate_file_that_is_a_fifo_stops_https_only() {
    let home = Home::new("");
    let fifo = home.path("fifo");
    mkfifo(&fifo);
    with("SSL_CERT_FILE", fifo.to_str().expect("text"));
}

#[test]
fn a_certificate_folder_with_nothing_but_a_fifo_stops_https_only() {
    let home = Home::new("");
    let folder = home.path("certificates");
    std::fs::create_dir(&folder).expect("made");
    mkfifo(&folder.join("0a1b2c3d.0"));
    with("SSL_CERT_DIR", folder.to_str().expect("text"));
}

/// As a mount does whose server is gone: the kernel's log is a regular file, and reading it waits for the next line.
#[test]
fn a_certificate_file_that_never_answers_stops_https_only() {
    let path = "/proc/kmsg";
    if std::fs::File::open(path).is_err() {
        return println!("skipped: {path} needs root, and no container in the way");
    }
    with_fault("SSL_CERT_FILE", path, "upstream-unavailable");
}

fn mkfifo(path: &std::path::Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}
