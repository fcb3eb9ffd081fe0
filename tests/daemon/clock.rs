//! This machine's clock is wrong: the identity token ends by its issuer's.

use serde_json::json;
use wandb_cred::clock::Clock;

use crate::setup::{Daemon, Home, Sandbox, until};

/// How much life the daemon believes its identity token to have, in seconds.
fn identity_left(daemon: &Daemon) -> u64 {
    daemon.profile("work")["identity"]["expires_in"].as_u64().unwrap_or_default()
}

#[test]
fn a_clock_that_is_ahead_does_not_refuse_a_short_jwt() {
    // By our clock it ended ten minutes ago.
    let sandbox = Sandbox::start(&["--clock-ahead", "-900", "--jwt-life", "300"]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    daemon.token("");
    let left = identity_left(&daemon);
    assert!((250..=300).contains(&left), "{left}");
    assert_eq!(sandbox.exchanges(), 1, "asking for the time is no exchange");
}

#[test]
fn a_clock_that_is_behind_does_not_stretch_a_jwt() {
    let sandbox = Sandbox::start(&["--clock-ahead", "900", "--jwt-life", "300"]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    // The first exchange tells the time: the next identity token is judged by it.
    daemon.token("");
    until("a JWT that is judged by its issuer's clock", 30, || {
        daemon.ask("POST", "/v1/refresh", "").expect("answered");
        let left = identity_left(&daemon);
        (250..=300).contains(&left).then_some(())
    });
}

#[test]
fn a_jwt_that_is_over_everywhere_is_refused_in_its_own_words() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let jwt = home.write("jwt", &sandbox.control().mint("life=-5"));
    home.write_config(&sandbox.file_profile("work", &jwt));
    let daemon = home.daemon();
    let answer = daemon.get("/v1/token?wait=1");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("the JWT expired at"), "{}", answer.text());
    assert_eq!(sandbox.exchanges(), 0);
}

/// W&B's first answer says another time than it is; its clock is right afterwards.
fn one_wrong_date(date: &str) {
    let sandbox = Sandbox::start(&["--jwt-life", "300"]);
    let home = Home::new("");
    let jwt = home.write("jwt", &sandbox.control().mint(""));
    home.write_config(&sandbox.file_profile("work", &jwt));
    let fault = json!({ "status": 503, "headers": { "Date": date }, "count": 1 });
    sandbox.control().faults(&json!({ "exchange": fault }));
    let daemon = home.daemon();
    let answer = daemon.get("/v1/token?wait=20");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!((1..=300).contains(&identity_left(&daemon)), "{}", identity_left(&daemon));
}

#[test]
fn a_server_that_is_in_2099_locks_nobody_out() {
    one_wrong_date("Thu, 01 Jan 2099 00:00:00 GMT");
}

#[test]
fn a_server_that_is_in_1970_lengthens_no_life() {
    one_wrong_date("Thu, 01 Jan 1970 00:00:01 GMT");
}

#[test]
fn a_server_that_is_fifteen_minutes_ahead_once_locks_nobody_out() {
    let ahead = Clock::system_ahead(15 * 60).now().wall;
    one_wrong_date(&ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
}
