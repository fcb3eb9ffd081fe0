//! A command and a daemon of different versions (docs/upgrading.md): who is newer has more to say, and the other gets by.

use crate::TOKEN;
use crate::fake_daemon::{FakeDaemon, on};

#[test]
fn fields_that_a_newer_daemon_adds_are_passed_over() {
    let body = TOKEN.replacen('{', r#"{"new":{"deep":[1]},"#, 1);
    let ran = FakeDaemon::start(vec![on("GET", 200, body)]).run(&["token"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "wb_at_1\n"), "{}", ran.err);
}

#[test]
fn a_reason_that_only_a_newer_daemon_understands_costs_nothing() {
    for reason in [
        r#"{"code":"a-later-reason","data":1}"#,
        r#"{"code":"stopping","new":1}"#,
        r#"{"code":"replayed-at"}"#,
        "7",
    ] {
        let body = r#"{"type":"needs-login","title":"T","status":401,"detail":"sign in","next":"x","new":1,"reason":"#;
        let ran = FakeDaemon::start(vec![on("GET", 401, format!("{body}{reason}}}"))]).run(&["token"]);
        assert_eq!(ran.code, 77, "{reason}: {}", ran.err);
        assert!(ran.err.contains("sign in"), "{reason}: {}", ran.err);
    }
}

#[test]
fn a_type_that_only_a_newer_daemon_knows_counts_by_its_status() {
    for (status, code) in [(503, 75), (429, 75), (409, 64)] {
        let body = format!(
            r#"{{"type":"a-later-type","title":"T","status":{status},"detail":"the moon is full","next":"wait"}}"#
        );
        let ran = FakeDaemon::start(vec![on("GET", status, body)]).run(&["token"]);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains("the moon is full") && ran.err.contains("next: wait"), "{}", ran.err);
    }
}

#[test]
fn an_older_daemon_without_the_route_is_to_be_restarted() {
    let body = r#"{"type":"not-found","title":"T","status":404,"detail":"no such route",
        "next":"restart wandb-credd, so that it has the same version as wandb-cred"}"#;
    let ran = FakeDaemon::start(vec![on("GET", 404, body)]).run(&["token"]);
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("restart wandb-credd"), "{}", ran.err);
}
