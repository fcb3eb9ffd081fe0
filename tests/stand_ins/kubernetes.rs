//! Kubernetes: an API server that knows TokenRequest, accepted by the official client.

use std::time::Duration;

use tempfile::TempDir;
use wandb_cred::clock::Clock;
use wandb_cred::error::{Error, Kind};
use wandb_cred::token::{Claims, IdentityToken};

use crate::process::{StandIn, judge, python};
use crate::{class_of, fetch};

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn asks_for_a_token_as_the_official_client_does() {
    let cluster = Cluster::start();
    judge(python("judge.py").arg("kubernetes").arg(cluster.dir.path()).arg(&cluster.api.address));
    let token = cluster.ask("lifetime = \"20m\"").await.expect("a token");
    let Claims { sub, aud, exp, iat, other, .. } = token.claims();
    assert_eq!(sub.as_deref(), Some("system:serviceaccount:ml:trainer"));
    assert_eq!(*aud, ["acme"]);
    assert_eq!(exp.zip(*iat).map(|(exp, iat)| exp - iat), Some(1200.0));
    assert_eq!(other["kubernetes.io"]["pod"]["uid"], "7c1f-pod", "bound to the pod");
    let unbound = cluster.ask("bind-to-pod = false").await.expect("a token");
    assert!(unbound.claims().other["kubernetes.io"].get("pod").is_none());
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_account_that_may_not_ask_is_told_the_role_it_needs() {
    let error = refusal_of("forbidden").await;
    assert_eq!(class_of(&error), "misconfigured", "{error}");
    assert!(error.to_string().contains("kubectl create role"), "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_account_that_does_not_exist_is_told_how_to_look() {
    let error = refusal_of("missing").await;
    assert_eq!(class_of(&error), "misconfigured", "{error}");
    assert!(error.to_string().contains("kubectl get serviceaccount missing -n ml"), "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn a_server_that_throttles_says_for_how_long() {
    let error = refusal_of("busy").await;
    assert!(error.to_string().contains("too many requests"), "{error}");
    let Error { kind: Kind::Transient, retry_after, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn a_forged_pod_token_is_rejected_and_not_shown() {
    let cluster = Cluster::start();
    std::fs::write(cluster.dir.path().join("token"), forged()).expect("written");
    let error = cluster.ask("").await.expect_err("a forged token");
    assert_eq!(class_of(&error), "rejected", "{error}");
    assert!(!error.to_string().contains("eyJ"));
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn trusts_the_clusters_own_authority_and_no_other() {
    let (cluster, other) = (Cluster::start(), Cluster::start());
    std::fs::copy(other.dir.path().join("ca.crt"), cluster.dir.path().join("ca.crt")).expect("copied");
    let error = cluster.ask("").await.expect_err("another authority");
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
}

/// An API server, and the folder of a pod's account.
struct Cluster {
    api: StandIn,
    dir: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        Self { api: StandIn::start(python("kubernetes_api.py").arg(dir.path())), dir }
    }

    async fn ask(&self, more: &str) -> Result<IdentityToken, Error> {
        let port = self.api.address.as_str();
        let env = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", port)];
        let config = format!("account-dir = \"{}\"\n{more}", self.dir.path().display());
        fetch("kubernetes", &config, &env).await
    }
}

async fn refusal_of(account: &str) -> Error {
    let more = format!("service-account = \"{account}\"");
    Cluster::start().ask(&more).await.expect_err("refused")
}

/// A pod's token that no cluster signed.
fn forged() -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let exp = Clock::system().now().wall.as_second() + 600;
    let claims = format!(r#"{{"sub":"system:serviceaccount:ml:trainer","exp":{exp}}}"#);
    format!("{}.{}.c2ln", encode(r#"{"alg":"ES256"}"#), encode(&claims))
}
