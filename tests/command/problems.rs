//! Each problem that the daemon reports has its exit code and the next command to type.

use crate::fake_daemon::{FakeDaemon, on};

#[test]
fn bad_request_is_wrong_usage() {
    ends_with("bad-request", 400, 64, Some("wandb-cred --help"));
}

#[test]
fn needs_login_asks_for_a_login() {
    ends_with("needs-login", 401, 77, Some("wandb-cred login"));
}

#[test]
fn forbidden_has_no_next_command() {
    ends_with("forbidden", 403, 69, None);
}

#[test]
fn no_such_profile_is_a_matter_of_configuration() {
    ends_with("no-such-profile", 404, 78, Some("wandb-cred status"));
}

#[test]
fn not_found_asks_for_a_restart() {
    ends_with("not-found", 404, 69, Some(RESTART));
}

#[test]
fn method_not_allowed_asks_for_a_restart() {
    ends_with("method-not-allowed", 405, 69, Some(RESTART));
}

#[test]
fn lifetime_too_short_asks_for_no_refresh_which_could_not_help() {
    ends_with("lifetime-too-short", 409, 75, Some("wandb-cred status"));
}

#[test]
fn locked_asks_for_unlock() {
    ends_with("locked", 423, 77, Some("wandb-cred unlock"));
}

#[test]
fn too_many_requests_is_temporary() {
    ends_with("too-many-requests", 429, 75, Some("wandb-cred status"));
}

#[test]
fn sdk_files_unwritable_is_temporary() {
    ends_with("sdk-files-unwritable", 500, 75, Some("wandb-cred status"));
}

#[test]
fn exchange_rejected_is_a_matter_of_configuration() {
    ends_with("exchange-rejected", 502, 78, Some("wandb-cred doctor"));
}

#[test]
fn identity_rejected_is_a_matter_of_configuration() {
    ends_with("identity-rejected", 502, 78, Some("wandb-cred doctor"));
}

#[test]
fn misconfigured_asks_for_a_check() {
    ends_with("misconfigured", 502, 78, Some("wandb-cred check"));
}

#[test]
fn upstream_unavailable_is_temporary() {
    ends_with("upstream-unavailable", 503, 75, Some("wandb-cred status"));
}

#[test]
fn shutting_down_is_temporary() {
    ends_with("shutting-down", 503, 75, Some("wandb-cred status"));
}

const RESTART: &str = "restart wandb-credd, so that it has the same version as wandb-cred";

fn ends_with(kind: &str, status: u16, exit: i32, next: Option<&str>) {
    let body =
        format!(r#"{{"type":"{kind}","title":"T","status":{status},"detail":"profile work: it is so"}}"#);
    let ran = FakeDaemon::start(vec![on("GET /v1/token", status, body)]).run(&["token"]);
    let next = next.map_or(String::new(), |next| format!("  next: {next}\n"));
    assert_eq!((ran.code, ran.out.as_str()), (exit, ""));
    assert_eq!(ran.err, format!("wandb-cred: profile work: it is so\n{next}"));
}

#[test]
fn the_daemons_own_next_command_and_retry_time_are_shown() {
    let body = r#"{"type":"needs-login","title":"T","status":401,"detail":"profile work: sign in","next":"wandb-cred login","retry_after":90}"#;
    let ran = FakeDaemon::start(vec![on("GET /v1/token", 401, body)]).run(&["token"]);
    assert_eq!(ran.code, 77);
    assert_eq!(
        ran.err,
        "wandb-cred: profile work: sign in (next attempt in 1 min 30 s)\n  next: wandb-cred login\n"
    );
}

/// The list of what was looked for would fill a screen.
#[test]
fn no_identity_is_said_in_two_lines() {
    let body = format!(
        r#"{{"type":"misconfigured","title":"T","status":502,"detail":"provider auto: {}","profile":"default","reason":{{"kind":"no-source"}}}}"#,
        "looked for x ".repeat(100)
    );
    let body = body.replace(
        r#"{"kind":"no-source"}"#,
        &serde_json::to_string(&wandb_cred::error::Reason::NoSource).expect("serializes"),
    );
    let daemon =
        FakeDaemon::start(vec![on("POST /v1/jobs", 502, body.clone()), on("GET /v1/token", 502, body)]);
    for arguments in [&["exec", "--", "true"][..], &["token"]] {
        let ran = daemon.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (78, ""));
        assert_eq!(
            ran.err,
            "wandb-cred: no identity was found here, and none is configured\n  next: wandb-cred login --issuer URL --client-id ID, or wandb-cred doctor\n"
        );
    }
}
