//! CI services and Vault: each stand-in is accepted by the vendor's client first; Buildkite's is as strict as its
//! documentation.

use crate::process::{StandIn, cloud_python, judge, node, python};
use crate::{class_of, fetch, fetch_for};

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn github_actions_gets_the_token_that_the_toolkit_gets() {
    let service = StandIn::start(&mut python("ci_services.py"));
    let url = format!("{}/github/idtoken?api-version=2.0", service.address);
    let env =
        [("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token")];
    judge(node("stand_ins/judge_actions.mjs").envs(env));
    let token = fetch("github-actions", "", &env).await.expect("a token");
    assert_eq!(token.claims().sub.as_deref(), Some("repo:acme/train:ref:refs/heads/main"));
    let error = fetch("github-actions", "", &[env[0], (env[1].0, "another")]).await.expect_err("refused");
    assert_eq!(class_of(&error), "rejected", "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn buildkite_has_a_subject_that_does_not_change_with_the_commit() {
    let service = StandIn::start(&mut python("ci_services.py"));
    let endpoint = format!("{}/buildkite/v3", service.address);
    let env = [
        ("BUILDKITE_AGENT_ENDPOINT", endpoint.as_str()),
        ("BUILDKITE_AGENT_ACCESS_TOKEN", "agent-token"),
        ("BUILDKITE_JOB_ID", "0189-job"),
    ];
    let sub = async |config| fetch("buildkite", config, &env).await.map(|token| token.claims().sub.clone());
    assert_eq!(sub("").await.expect("minted").as_deref(), Some("0188-pipeline"));
    let compound = sub("subject-claim = \"\"").await.expect("minted").expect("a subject");
    assert!(compound.contains(":commit:"), "{compound}");
    let error = sub("subject-claim = \"commit\"").await.expect_err("no immutable claim");
    assert!(error.to_string().contains("not an immutable claim"), "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_pipelines_gets_the_token_that_azure_identity_gets() {
    let service = StandIn::start(&mut python("ci_services.py"));
    let url = format!("{}/azure/oidctoken", service.address);
    let env = [("SYSTEM_OIDCREQUESTURI", url.as_str()), ("SYSTEM_ACCESSTOKEN", "access-token")];
    judge(cloud_python("judge_clouds.py").args(["azure-pipelines", "c-1"]).envs(env));
    let audience = "api://AzureADTokenExchange";
    for (config, subject) in
        [("", "p://acme/train/nightly"), ("service-connection = \"c-1\"", "sc://acme/train/c-1")]
    {
        let token = fetch_for(audience, "azure-pipelines", config, &env).await.expect("a token");
        assert_eq!(token.claims().sub.as_deref(), Some(subject));
    }
    let other = [env[0], (env[1].0, "another")];
    let error = fetch_for(audience, "azure-pipelines", "", &other).await.expect_err("refused");
    assert_eq!(class_of(&error), "rejected", "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn vault_gives_the_token_that_hvac_gets() {
    let service = StandIn::start(&mut python("ci_services.py"));
    judge(python("judge.py").args(["vault", &service.address]));
    let env = [("VAULT_ADDR", service.address.as_str()), ("VAULT_TOKEN", "vault-token")];
    let token = fetch("vault", "role = \"wandb\"", &env).await.expect("a token");
    assert_eq!(token.claims().sub.as_deref(), Some("0184990a-477b"));
    let other = [env[0], (env[1].0, "another")];
    let error = fetch("vault", "role = \"wandb\"", &other).await.expect_err("refused");
    assert_eq!(class_of(&error), "rejected", "{error}");
}
