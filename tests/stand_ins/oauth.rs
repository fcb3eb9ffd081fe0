//! OAuth client credentials: a certified OpenID Provider judges each way to prove who a client is.

use tempfile::TempDir;
use wandb_cred::error::Error;
use wandb_cred::token::IdentityToken;

use crate::process::{StandIn, node};
use crate::{class_of, fetch};

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn a_secret_by_http_basic_passes() {
    passes("basic", "client-secret-file = \"DIR/secret\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn a_secret_in_the_form_passes() {
    passes("post", "client-secret-file = \"DIR/secret\"\nauth = \"post\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_rsa_key_passes() {
    passes("key", "private-key-file = \"DIR/rsa.pem\"\nkey-id = \"rsa\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_elliptic_key_passes() {
    passes("key", "private-key-file = \"DIR/ec.pem\"\nkey-id = \"ec\"\nalgorithm = \"ES256\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn a_strangers_key_is_rejected() {
    let error = Provider::start().ask("key", "private-key-file = \"DIR/stranger.pem\"").await;
    let error = error.expect_err("not its key");
    assert_eq!(class_of(&error), "rejected", "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn a_key_of_another_kind_names_the_setting() {
    let error = Provider::start().ask("key", "private-key-file = \"DIR/ec.pem\"").await;
    let error = error.expect_err("another kind of key");
    assert!(error.to_string().contains("`algorithm`"), "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn an_opaque_token_is_said_to_be_no_jwt() {
    let provider = Provider::start();
    let config = provider.config("basic", "client-secret-file = \"DIR/secret\"");
    let config = config.replace("resource = ", "audience = ");
    let error = fetch("client-credentials", &config, &[]).await.expect_err("an opaque token");
    assert!(error.to_string().contains("not a JWT"), "{error}");
}

async fn passes(client: &str, proof: &str) {
    let provider = Provider::start();
    let token = provider.ask(client, proof).await.expect("a token");
    assert_eq!(token.claims().aud, ["acme"]);
    assert_eq!(token.claims().iss.as_deref(), Some(provider.op.address.as_str()));
    provider.ask(client, proof).await.expect("a second time: the assertion's jti is new");
}

/// The provider, and the folder with its clients' secrets.
struct Provider {
    op: StandIn,
    dir: TempDir,
}

impl Provider {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        Self { op: StandIn::start(node("openid_provider.mjs").env("KEYS_DIR", dir.path())), dir }
    }

    fn config(&self, client: &str, proof: &str) -> String {
        let resource = "resource = \"https://wandb.example/acme\"\nscopes = [\"wandb\"]";
        let proof = proof.replace("DIR", &self.dir.path().display().to_string());
        format!("issuer = \"{}\"\nclient-id = \"{client}\"\n{resource}\n{proof}\n", self.op.address)
    }

    async fn ask(&self, client: &str, proof: &str) -> Result<IdentityToken, Error> {
        fetch("client-credentials", &self.config(client, proof), &[]).await
    }
}
