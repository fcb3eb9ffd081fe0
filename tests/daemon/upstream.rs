//! Answers of W&B that are odd, not down: which of them are good tokens, and what a refusal causes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::setup::{Home, Sandbox, now, until};

#[test]
fn a_lifetime_may_have_a_fraction_or_be_a_string() {
    for fault in ["non-integer-expires", "string-expires"] {
        let sandbox = Sandbox::start(&[]);
        sandbox.control().faults(&json!({ "exchange": fault }));
        let home = Home::new(&sandbox.profile("work"));
        let daemon = home.daemon();
        let token = daemon.get("/v1/token").json();
        let life = token["expires_in"].as_u64().expect("whole seconds");
        assert!((3590..=3600).contains(&life), "{fault}: {token}");
    }
}

#[test]
fn a_used_jti_is_answered_with_one_new_identity_token() {
    let sandbox = Sandbox::start(&[]);
    let refusal = json!({ "error": "invalid_grant", "error_description": "The jti was already used." });
    sandbox
        .control()
        .faults(&json!({ "exchange": { "status": 400, "body": refusal.to_string(), "count": 1 } }));
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    daemon.token("");
    let stats = sandbox.control().stats();
    assert_eq!((&stats["exchanges"]["total"], &stats["mints"]), (&json!(2), &json!(2)));
}

#[test]
fn a_file_that_never_changes_is_presented_once_and_a_new_one_is_taken_up() {
    let sandbox = Sandbox::start(&["--token-life", "8"]);
    let control = sandbox.control();
    let home = Home::new("");
    let jwt = home.write("jwt", &control.mint(""));
    home.write_config(&sandbox.file_profile("work", &jwt));
    let daemon = home.daemon();
    daemon.token("");
    until("W&B says that the jti was used", 10, || {
        (control.stats()["exchanges"]["by_outcome"]["jti-used"] == 1).then_some(())
    });
    let refused = until("the token ends", 10, || {
        let answer = daemon.get("/v1/token?wait=0");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((refused.status, &refused.json()["type"]), (502, &json!("exchange-rejected")));
    // Callers do not make it ask again, however often they come.
    let start = now();
    while now() - start < Duration::from_secs(3) {
        assert_ne!(daemon.get("/v1/token?wait=0").status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(control.exchanges(), 2, "one token, one refusal, and then silence");
    home.write("jwt", &control.mint(""));
    until("the new identity token is used", 40, || {
        (daemon.get("/v1/token?wait=0").status == 200).then_some(())
    });
}

#[test]
fn tokens_that_live_one_second_cause_no_hammering() {
    no_hammering("1");
}

#[test]
fn tokens_that_live_two_seconds_cause_no_hammering() {
    no_hammering("2");
}

fn no_hammering(life: &str) {
    let sandbox = Sandbox::start(&["--token-life", life]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let start = now();
    while now() - start < Duration::from_secs(5) {
        let answer = daemon.get("/v1/token?wait=0");
        assert!(answer.status != 200 || answer.json()["expires_in"] != 0, "{}", answer.text());
        std::thread::sleep(Duration::from_millis(20));
    }
    let exchanges = sandbox.exchanges();
    assert!((1..=10).contains(&exchanges), "{exchanges} exchanges in 5 s");
}

#[test]
fn a_first_token_behind_a_hanging_exchange_is_refused_in_time_with_what_to_do() {
    refused_in_time(&json!("hang"), "upstream-unavailable", 75);
}

#[test]
fn a_first_token_behind_a_busy_wandb_is_refused_in_time_with_what_to_do() {
    refused_in_time(&json!({ "status": 503 }), "upstream-unavailable", 75);
}

#[test]
fn a_first_token_behind_a_garbled_answer_is_refused_in_time_with_what_to_do() {
    refused_in_time(&json!("garbage"), "upstream-unavailable", 75);
}

#[test]
fn a_first_token_behind_a_redirect_is_refused_in_time_with_what_to_do() {
    refused_in_time(&json!("redirect"), "misconfigured", 78);
}

#[test]
fn a_first_token_behind_a_refusal_in_plain_text_is_refused_in_time_with_what_to_do() {
    refused_in_time(&json!("plain-text"), "exchange-rejected", 78);
}

fn refused_in_time(fault: &Value, kind: &str, exit: i32) {
    let sandbox = Sandbox::start(&[]);
    sandbox.control().faults(&json!({ "exchange": fault }));
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let start = now();
    let answer = daemon.get("/v1/token?wait=1");
    assert!(now() - start < Duration::from_secs(5), "took {:?}", now() - start);
    let problem = answer.json();
    assert_eq!(problem["type"], kind, "{problem}");
    assert!(answer.head.contains("application/problem+json"), "{}", answer.head);
    let ran = home.run(&["token", "--wait", "1"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(exit), ""), "{}", ran.err);
    assert!(ran.err.contains("profile `work`") && ran.err.contains("next: wandb-cred"), "{}", ran.err);
    assert_eq!(sandbox.control().stats()["redirects_followed"], 0);
    assert_eq!(daemon.get("/healthz").status, 200);
    assert_ne!(daemon.get("/readyz").status, 200);
}

#[test]
fn a_rejected_token_is_renewed_once_and_a_stale_report_changes_nothing() {
    use sha2::{Digest as _, Sha256};
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let token = daemon.token("");
    let hash: String = Sha256::digest(&token).iter().map(|byte| format!("{byte:02x}")).collect();
    let report = json!({ "profile": "work", "token_sha256": hash }).to_string();
    let reported = daemon.ask("POST", "/v1/rejected", &report).expect("an answer");
    assert_eq!(reported.json()["renewed"], true);
    for _ in 0..50 {
        daemon.ask("POST", "/v1/rejected", &report).expect("an answer");
    }
    until("another token is served", 20, || (daemon.token("") != token).then_some(()));
    let late = daemon.ask("POST", "/v1/rejected", &report).expect("an answer");
    assert_eq!((late.json()["renewed"].as_bool(), sandbox.exchanges()), (Some(false), 2));
}

#[test]
fn a_stuck_profile_delays_no_other() {
    let (stuck, good) = (Sandbox::start(&[]), Sandbox::start(&[]));
    stuck.control().faults(&json!({ "exchange": "hang" }));
    let home = Home::new(&format!("{}{}", stuck.profile("stuck"), good.profile("good")));
    let daemon = home.daemon();
    assert_ne!(daemon.get("/v1/token?profile=stuck&wait=0").status, 200);
    let start = now();
    daemon.token("profile=good");
    assert!(now() - start < Duration::from_secs(5), "took {:?}", now() - start);
}
