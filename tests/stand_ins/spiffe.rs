//! SPIFFE: the Workload API's stand-in is real gRPC, accepted by py-spiffe.

use std::path::Path;
use std::time::Duration;

use wandb_cred::error::{Error, Kind};

use crate::process::{StandIn, judge, python};
use crate::{class_of, fetch};

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn gets_the_svid_that_py_spiffe_gets() {
    let dir = tempfile::tempdir().expect("temp dir");
    let agent = agent(dir.path(), "ok");
    judge(python("judge.py").args(["spiffe", &agent.address]));
    let env = [("SPIFFE_ENDPOINT_SOCKET", agent.address.as_str())];
    for config in ["", "spiffe-id = \"spiffe://example.org/trainer\""] {
        let token = fetch("spiffe", config, &env).await.expect("an SVID");
        assert_eq!(token.claims().sub.as_deref(), Some("spiffe://example.org/trainer"));
        assert_eq!(token.claims().aud, ["acme"]);
    }
    let stranger = fetch("spiffe", "spiffe-id = \"spiffe://example.org/other\"", &env).await;
    assert!(matches!(stranger, Err(Error { kind: Kind::Transient, .. })), "{stranger:?}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn chooses_by_hint_among_several() {
    let dir = tempfile::tempdir().expect("temp dir");
    let agent = agent(dir.path(), "two");
    let env = [("SPIFFE_ENDPOINT_SOCKET", agent.address.as_str())];
    let sub = async |config| fetch("spiffe", config, &env).await.map(|token| token.claims().sub.clone());
    assert_eq!(sub("").await.expect("the first").as_deref(), Some("spiffe://example.org/trainer"));
    let external = sub("hint = \"external\"").await.expect("by hint");
    assert_eq!(external.as_deref(), Some("spiffe://example.org/batch"));
    let none = sub("hint = \"gone\"").await;
    assert!(matches!(none, Err(Error { kind: Kind::Misconfigured, .. })), "{none:?}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_invalid_argument_is_a_misconfiguration() {
    refuses("INVALID_ARGUMENT", "misconfigured").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_unknown_method_is_a_misconfiguration() {
    refuses("UNIMPLEMENTED", "misconfigured").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_unauthenticated_caller_is_rejected() {
    refuses("UNAUTHENTICATED", "rejected").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn a_denied_permission_may_be_granted_later() {
    refuses("PERMISSION_DENIED", "transient").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_agent_that_is_unavailable_is_asked_again() {
    refuses("UNAVAILABLE", "transient").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_agent_with_an_internal_error_is_asked_again() {
    refuses("INTERNAL", "transient").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_agent_that_is_exhausted_is_asked_again() {
    refuses("RESOURCE_EXHAUSTED", "transient").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_answer_without_svid_is_asked_for_again() {
    refuses("none", "transient").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_agent_that_says_nothing_is_asked_again() {
    refuses("silent", "transient").await;
}

/// A refusal has its class, comes in time, shows no secret, and leaves nothing behind.
async fn refuses(behaviour: &str, class: &str) {
    let dir = tempfile::tempdir().expect("temp dir");
    let agent = agent(dir.path(), behaviour);
    let env = [("SPIFFE_ENDPOINT_SOCKET", agent.address.as_str())];
    let started = tokio::time::Instant::now();
    let error = fetch("spiffe", "timeout = \"700ms\"", &env).await.expect_err(behaviour);
    assert!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
    assert_eq!(class_of(&error), class, "{error}");
    assert!(!error.to_string().contains("planted"), "{error}");
    // The connection's task ends with the call: nothing keeps the runtime awake.
    let metrics = tokio::runtime::Handle::current().metrics();
    let deadline = started + Duration::from_secs(3);
    while metrics.num_alive_tasks() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "a task was left behind");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The agent, on a socket in `dir`.
fn agent(dir: &Path, behaviour: &str) -> StandIn {
    let socket = dir.join("agent.sock").display().to_string();
    StandIn::start(python("spiffe_agent.py").args([&socket, behaviour]))
}
