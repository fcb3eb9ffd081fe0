//! The cloud providers against a stand-in that the vendors' own clients accept first, request by request: where
//! the two differ in method, path, query, headers or body, ours is wrong.

use std::time::Duration;

use tempfile::TempDir;
use wandb_cred::error::Error;
use wandb_cred::provider::Context;
use wandb_cred::provider::cloud::{aws, azure, gcp};
use wandb_cred::token::{Expires as _, IdentityToken};

use crate::process::{self, StandIn, cloud_python};
use crate::{class_of, fetch_for};

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn gcp_asks_as_google_auth_does() {
    let cloud = Cloud::start();
    let host = cloud.url().trim_start_matches("http://").to_owned();
    let vars = [("GCE_METADATA_HOST", host.as_str()), ("GCE_METADATA_IP", host.as_str())];
    let token = cloud.compare(&["gcp"], "gcp", "", &vars).await;
    assert_eq!(token.claims().iss.as_deref(), Some("https://accounts.google.com"));
    assert_eq!(token.claims().email.as_deref(), Some("a@p.iam.gserviceaccount.com"));
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn gcp_lets_a_user_act_as_an_account_as_google_auth_does() {
    let file = r#"{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
                  "quota_project_id": "q"}"#;
    let account = "train@p.iam.gserviceaccount.com";
    gcp_user_compare(file, Some(account), &format!("service-account = {account:?}\n")).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn gcp_acts_as_the_account_of_an_impersonation_file_as_google_auth_does() {
    let file = r#"{"type": "impersonated_service_account", "delegates": ["projects/-/serviceAccounts/mid@p"],
                  "service_account_impersonation_url": "https://x/v1/projects/-/serviceAccounts/t@p.x:generateAccessToken",
                  "source_credentials": {"type": "authorized_user", "client_id": "c", "client_secret": "s",
                                         "refresh_token": "r"}}"#;
    gcp_user_compare(file, None, "").await;
}

async fn gcp_user_compare(file: &str, account: Option<&str>, ours: &str) {
    let cloud = Cloud::start();
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("application_default_credentials.json");
    std::fs::write(&path, file).expect("written");
    let vars = [("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().expect("text"))];
    let judged: Vec<_> = ["gcp-user", cloud.url()].into_iter().chain(account).collect();
    let url = cloud.url();
    let ours = format!("{ours}token-endpoint = \"{url}/oauth2/token\"\niam-endpoint = \"{url}\"\n");
    let token = cloud.compare(&judged, "gcp", &ours, &vars).await;
    assert!(token.claims().email.is_some());
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn gcp_is_recognised_by_the_request_that_google_auth_makes() {
    let cloud = Cloud::start();
    let host = cloud.url().trim_start_matches("http://").to_owned();
    let vars = [("GCE_METADATA_HOST", host.as_str()), ("GCE_METADATA_IP", host.as_str())];
    judge(&["gcp-probe"], &vars);
    let theirs = cloud.recorded();
    gcp::probe(&context(&vars)).await.expect("recognised");
    assert_eq!(cloud.recorded(), theirs);
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_the_metadata_service_for_the_default_identity_as_azure_identity_does() {
    azure_compare(vm, None, "").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_the_metadata_service_for_a_client_id_as_azure_identity_does() {
    azure_compare(vm, Some("client_id=c-1"), "client-id = \"c-1\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_the_metadata_service_for_an_object_id_as_azure_identity_does() {
    azure_compare(vm, Some("object_id=o-1"), "object-id = \"o-1\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_the_metadata_service_for_a_resource_id_as_azure_identity_does() {
    azure_compare(vm, Some("resource_id=/subscriptions/x/y"), "resource-id = \"/subscriptions/x/y\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_app_service_for_the_default_identity_as_azure_identity_does() {
    azure_compare(app_service, None, "").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_app_service_for_a_client_id_as_azure_identity_does() {
    azure_compare(app_service, Some("client_id=c-1"), "client-id = \"c-1\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_app_service_for_an_object_id_as_azure_identity_does() {
    azure_compare(app_service, Some("object_id=o-1"), "object-id = \"o-1\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_app_service_for_a_resource_id_as_azure_identity_does() {
    azure_compare(
        app_service,
        Some("resource_id=/subscriptions/x/y"),
        "resource-id = \"/subscriptions/x/y\"",
    )
    .await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_machine_learning_for_the_default_identity_as_azure_identity_does() {
    azure_compare(machine_learning, None, "").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_machine_learning_for_a_client_id_as_azure_identity_does() {
    azure_compare(machine_learning, Some("client_id=c-1"), "client-id = \"c-1\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_machine_learning_for_an_object_id_as_azure_identity_does() {
    azure_compare(machine_learning, Some("object_id=o-1"), "object-id = \"o-1\"").await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_machine_learning_for_a_resource_id_as_azure_identity_does() {
    azure_compare(
        machine_learning,
        Some("resource_id=/subscriptions/x/y"),
        "resource-id = \"/subscriptions/x/y\"",
    )
    .await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_is_recognised() {
    let cloud = Cloud::start();
    azure::probe(&context(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", cloud.url())])).await.expect("recognised");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn azure_asks_an_arc_agent_as_azure_identity_does() {
    let cloud = Cloud::start();
    let arc = format!("{}/arc", cloud.url());
    // The key's folder is fixed, so our own second request is made in `namespace`. The first is the same.
    let tokens = tempfile::tempdir().expect("temp dir");
    std::fs::write(tokens.path().join("proof.key"), "arc-key-file-content").expect("written");
    let vars = [("IDENTITY_ENDPOINT", arc.as_str()), ("IMDS_ENDPOINT", cloud.url())];
    judge(&["azure-arc", &tokens.path().display().to_string(), "object_id=o-1"], &vars);
    let theirs = cloud.recorded();
    let error = fetch("azure", "object-id = \"o-1\"", &vars).await.expect_err("no such key here");
    assert!(error.to_string().contains("/var/opt/azcmagent/tokens/proof.key"), "{error}");
    assert_eq!(cloud.recorded()[0], theirs[0]);
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_keys_of_the_environment_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &KEY).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_session_of_the_environment_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &SESSION).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_web_identity_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &aws.irsa()).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_container_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &aws.eks()).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_the_instance_role_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_profile_of_the_config_file_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[("AWS_PROFILE", "in-config")]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_profile_of_the_credentials_file_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[("AWS_PROFILE", "in-credentials")]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_credential_process_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[("AWS_PROFILE", "with process")]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_profile_with_a_web_identity_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[("AWS_PROFILE", "web")]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_named_profile_beside_a_session_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(Some("in-config"), &SESSION).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_signs_with_a_named_profile_beside_a_web_identity_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(Some("web"), &aws.irsa()).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_assumes_a_row_of_roles_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[("AWS_PROFILE", "assumed")]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_assumes_a_role_with_the_instances_credentials_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[("AWS_PROFILE", "from-instance")]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_takes_the_token_of_an_sso_session_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[("AWS_PROFILE", "sso")]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_takes_the_token_of_an_sso_address_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(Some("old-sso"), &[]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_assumes_a_role_with_sso_as_botocore_does() {
    let aws = Aws::start();
    aws.compare(None, &[("AWS_PROFILE", "by-sso")]).await;
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_is_recognised() {
    let aws = Aws::start();
    aws::probe(&context(&aws.vars(&[]))).await.expect("recognised");
}

#[tokio::test]
#[ignore = "needs scripts/setup-tests stand-ins"]
async fn aws_calls_a_wrong_signature_rejected() {
    let aws = Aws::start();
    let vars = [KEY[0], (KEY[1].0, "another")];
    let error = fetch("aws", "", &aws.vars(&vars)).await.expect_err("a wrong signature");
    assert_eq!(class_of(&error), "rejected", "{error}");
}

fn vm(url: &str) -> Vec<(&'static str, String)> {
    vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.to_owned())]
}

fn app_service(url: &str) -> Vec<(&'static str, String)> {
    let endpoint = format!("{url}/msi/token");
    vec![("IDENTITY_ENDPOINT", endpoint), ("IDENTITY_HEADER", "app-service-header".to_owned())]
}

fn machine_learning(url: &str) -> Vec<(&'static str, String)> {
    vec![("MSI_ENDPOINT", format!("{url}/MSI/auth")), ("MSI_SECRET", "ml-secret".to_owned())]
}

async fn azure_compare(platform: fn(&str) -> Vec<(&'static str, String)>, theirs: Option<&str>, ours: &str) {
    let cloud = Cloud::start();
    let vars = platform(cloud.url());
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let judged: Vec<_> = ["azure"].into_iter().chain(theirs).collect();
    let token = cloud.compare(&judged, "azure", ours, &vars).await;
    let wait = token.renewal().not_before_expiry.expect("a day's token");
    assert!(wait.abs_diff(Duration::from_secs(43_200)) < Duration::from_secs(60), "{wait:?}");
}

const KEY: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIDENV"), ("AWS_SECRET_ACCESS_KEY", "secret/env+key")];
const SESSION: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "ASIAROLE"),
    ("AWS_SECRET_ACCESS_KEY", "secret/role+key"),
    ("AWS_SESSION_TOKEN", "session/of+role=="),
];

/// The cloud, and a home with AWS's files.
struct Aws {
    cloud: Cloud,
    _home: TempDir,
    common: Vec<(&'static str, String)>,
    pod: String,
    agent: String,
    container: String,
}

impl Aws {
    fn start() -> Self {
        let cloud = Cloud::start();
        let home = tempfile::tempdir().expect("temp dir");
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let keys = "aws_access_key_id = AKIDENV\naws_secret_access_key = secret/env+key\n";
        let printed = r#"{"Version": 1, "AccessKeyId": "ASIAROLE", "SecretAccessKey": "secret/role+key",
                          "SessionToken": "session/of+role==", "Expiration": "2099-01-01T00:00:00Z"}"#;
        let printed = write("printed.json", printed);
        let (pod, agent) = (write("pod", "pod-token"), write("agent", "agent-token"));
        let config = format!(
            "# a comment\n[default]\nregion = eu-central-1\n[profile in-config]\nregion: eu-west-3\n{keys}\
             [profile \"with process\"]\nregion = us-gov-west-1\n\
             credential_process = /bin/sh -c 'cat \"$0\"' \"{printed}\"\ns3 =\n  addressing_style = path\n\
             [profile web]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/web\n\
             web_identity_token_file = {pod}\nrole_session_name = session\n\
             [profile in-credentials]\nregion = ap-south-1\n\
             [profile assumed]\nregion = eu-west-2\nrole_arn = arn:aws:iam::123456789012:role/a\n\
             source_profile = middle\nrole_session_name = session\nexternal_id = e/1\nduration_seconds = 7200\n\
             [profile middle]\nrole_arn = arn:aws:iam::123456789012:role/m\nsource_profile = in-config\n\
             role_session_name = session\n\
             [profile from-instance]\nregion = eu-west-2\nrole_arn = arn:aws:iam::123456789012:role/a\n\
             credential_source = Ec2InstanceMetadata\nrole_session_name = session\n\
             [profile sso]\nregion = eu-west-2\nsso_session = corp\nsso_account_id = 123456789012\n\
             sso_role_name = Train\n\
             [sso-session corp]\nsso_region = eu-west-3\nsso_start_url = https://corp.awsapps.com/start\n\
             sso_registration_scopes = sso:account:access\n\
             [profile old-sso]\nregion = eu-west-2\nsso_start_url = https://corp.awsapps.com/start\n\
             sso_region = eu-west-3\nsso_account_id = 123456789012\nsso_role_name = Train\n\
             [profile by-sso]\nregion = eu-west-2\nrole_arn = arn:aws:iam::123456789012:role/a\n\
             source_profile = sso\nrole_session_name = session\n"
        );
        // As `aws sso login` names them: SHA-1 of the session's name, and of the address.
        let cache = home.path().join(".aws/sso/cache");
        std::fs::create_dir_all(&cache).expect("made");
        let token = r#"{"startUrl": "https://corp.awsapps.com/start", "region": "eu-west-3", "accessToken": "sso-token",
                        "expiresAt": "2099-01-01T00:00:00Z"}"#;
        for name in ["ee0bfd2552fbd840c02cc48b6e823320543c450f", "a51746d4aa793ae07b25e90c3a5db96fc7832bd7"] {
            std::fs::write(cache.join(format!("{name}.json")), token).expect("written");
        }
        let common = vec![
            ("AWS_ENDPOINT_URL_STS", cloud.url().to_owned()),
            ("AWS_ENDPOINT_URL_SSO", cloud.url().to_owned()),
            ("HOME", home.path().display().to_string()),
            ("AWS_CONFIG_FILE", write("config", &config)),
            ("AWS_SHARED_CREDENTIALS_FILE", write("credentials", &format!("[in-credentials]\n{keys}"))),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud.url().to_owned()),
        ];
        let container = format!("{}/v1/credentials", cloud.url());
        Self { cloud, _home: home, common, pod, agent, container }
    }

    fn vars<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        self.common.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect()
    }

    fn irsa(&self) -> [(&str, &str); 3] {
        [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &self.pod),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
            ("AWS_ROLE_SESSION_NAME", "name"),
        ]
    }

    fn eks(&self) -> [(&str, &str); 2] {
        [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &self.container),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &self.agent),
        ]
    }

    async fn compare(&self, profile: Option<&str>, more: &[(&str, &str)]) {
        let vars = self.vars(more);
        let judged: Vec<_> = ["aws"].into_iter().chain(profile).collect();
        let tags = "tags = { team = \"r&d ünits\", tier = \"1\" }\n";
        let ours = profile.map_or(tags.to_owned(), |profile| format!("{tags}profile = \"{profile}\"\n"));
        let token = self.cloud.compare(&judged, "aws", &ours, &vars).await;
        assert_eq!(token.claims().iss.as_deref(), Some("https://x.tokens.sts.global.api.aws"));
    }
}

/// The stand-in of all clouds; ends when this is dropped.
pub(crate) struct Cloud(StandIn);

impl Cloud {
    pub(crate) fn start() -> Self {
        Self::at("127.0.0.1", 0)
    }

    pub(crate) fn at(address: &str, port: u16) -> Self {
        Self::spawn(&[address, &port.to_string()])
    }

    pub(crate) fn spawn(arguments: &[&str]) -> Self {
        Self(StandIn::start(cloud_python("clouds.py").args(arguments)))
    }

    pub(crate) fn url(&self) -> &str {
        &self.0.address
    }

    /// What was asked since the last time.
    pub(crate) fn recorded(&self) -> Vec<serde_json::Value> {
        // Not by our own client: it would refuse the public address that one test uses.
        let output = cloud_python("fetch.py").arg(format!("{}/recorded", self.url())).output();
        serde_json::from_slice(&output.expect("python runs").stdout).expect("JSON")
    }

    /// The vendor's client, then ours, under the same variables: same requests, and a token.
    async fn compare(
        &self,
        judged: &[&str],
        kind: &str,
        config: &str,
        vars: &[(&str, &str)],
    ) -> IdentityToken {
        judge(judged, vars);
        let theirs = self.recorded();
        assert!(!theirs.is_empty(), "{judged:?} asked nobody");
        let token = fetch(kind, config, vars).await.unwrap_or_else(|error| panic!("{judged:?}: {error}"));
        // The day and the moment are in the signature's scope; the vendor's call may have been a day before ours.
        assert_eq!(self.recorded(), theirs, "{judged:?} {config}");
        assert_eq!(token.claims().aud, [AUDIENCE]);
        token
    }
}

pub(crate) fn judge(arguments: &[&str], vars: &[(&str, &str)]) {
    process::judge(cloud_python("judge_clouds.py").args(arguments).envs(vars.iter().copied()));
}

pub(crate) async fn fetch(kind: &str, config: &str, vars: &[(&str, &str)]) -> Result<IdentityToken, Error> {
    fetch_for(AUDIENCE, kind, config, vars).await
}

pub(crate) fn context(vars: &[(&str, &str)]) -> Context {
    crate::context(AUDIENCE, vars)
}

const AUDIENCE: &str = "api://acme";
