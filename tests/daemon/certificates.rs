//! A system without CA certificates: whatever needs none works, and https says what is missing.

use crate::setup::{DAEMON, Home, Sandbox};

fn with(variable: &str, path: &str) {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let jwt = home.write("jwt", &sandbox.control().mint(""));
    let network = sandbox.file_profile("network", &jwt).replace(&sandbox.url, "https://127.0.0.1:1");
    home.write_config(&format!("{}{network}", sandbox.file_profile("work", &jwt)));
    let mut daemon = home.daemon_of(home.program(DAEMON, &["run"]).env(variable, path));
    assert!(daemon.token("profile=work").starts_with("wb_at_"));
    let refused = daemon.get("/v1/token?profile=network&wait=5");
    assert_eq!(refused.status, 502, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(problem["type"], "misconfigured", "{problem}");
    assert_eq!(problem["reason"]["code"], "no-certificates", "{problem}");
    assert_eq!(problem["reason"]["variable"], variable, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(path)), "{problem}");
    let doctor = daemon.get("/v1/doctor?profile=network").json();
    let findings = doctor["findings"].as_array().expect("findings");
    let server = findings.iter().find(|finding| finding["step"] == "server").expect("looked at");
    assert_eq!((&server["verdict"], &server["exit"]), (&"fail".into(), &78.into()), "{server}");
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
