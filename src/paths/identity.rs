//! What decides which identity a daemon would have, as a hash: daemons are shared only by those who would get the same one.

use std::io::Read as _;

use sha2::{Digest as _, Sha256};

use super::{Places, SdkEnvironment};
use crate::env::Env;

/// Over the configuration file and every variable that a provider, or a program that it runs, may read.
pub(super) fn of(env: &Env) -> String {
    let config = configuration(env);
    let mut parts = vec![env!("CARGO_PKG_VERSION").as_bytes().to_vec(), config.clone()];
    let own = SdkEnvironment::of(env).is_some();
    let words = words(&config);
    for name in VARIABLES.iter().copied().chain(words.iter().map(String::as_str)) {
        if let Some(value) = env.path(name).filter(|_| !(own && SDK_VARIABLES.contains(&name))) {
            parts.push(name.as_bytes().to_vec());
            parts.push(value.into_os_string().into_encoded_bytes());
        }
    }
    digest(parts.iter().map(Vec::as_slice))
}

/// The file's path and content; of what is not a plain file, the path alone.
fn configuration(env: &Env) -> Vec<u8> {
    let Ok(Places { config, .. }) = Places::find(env) else { return Vec::new() };
    let mut content = Vec::new();
    if config.metadata().is_ok_and(|meta| meta.is_file())
        && let Ok(file) = std::fs::File::open(&config)
    {
        // What is longer is refused by the daemon.
        let _ = file.take(MAX_CONFIGURATION).read_to_end(&mut content);
    }
    content.extend_from_slice(config.as_os_str().as_encoded_bytes());
    content
}

/// Words in the configuration that may name variables: that of an `env` provider, those in the command lines of helpers.
fn words(config: &[u8]) -> Vec<String> {
    let in_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    config
        .split(|byte| !in_name(byte))
        .filter(|word| word.len() >= 2)
        .filter_map(|word| String::from_utf8(word.to_vec()).ok())
        .filter(|word| !VARIABLES.contains(&word.as_str()))
        .collect()
}

/// SHA-256 of the parts, each after its length, in hexadecimal digits.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// Those that the SDK reads: `exec` sets them itself, and inside a job they say nothing of an identity.
const SDK_VARIABLES: [&str; 2] = ["WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"];

const MAX_CONFIGURATION: u64 = 1024 * 1024;

/// What providers, their vendors' tools and the network read. A test holds the list to the providers' source.
pub const VARIABLES: &[&str] = &[
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ALL_PROXY",
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SSO",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_METADATA_SERVICE_TIMEOUT",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_CONFIG_DIR",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "AZURE_TENANT_ID",
    "BAO_ADDR",
    "BAO_CONFIG_PATH",
    "BAO_NAMESPACE",
    "BAO_TOKEN",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "BUILDKITE_AGENT_ENDPOINT",
    "BUILDKITE_JOB_ID",
    "BUILDKITE_TIMEOUT",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "CI_JOB_STARTED_AT",
    "CI_JOB_TIMEOUT",
    "CLOUDSDK_ACTIVE_CONFIG_NAME",
    "CLOUDSDK_CONFIG",
    "DBUS_SESSION_BUS_ADDRESS",
    "DEFAULT_IDENTITY_CLIENT_ID",
    "FLY_MACHINE_ID",
    "FORGEJO_ACTIONS",
    "GCE_METADATA_HOST",
    "GCE_METADATA_IP",
    "GCE_METADATA_MTLS_MODE",
    "GCE_METADATA_ROOT",
    "GCE_METADATA_TIMEOUT",
    "GITEA_ACTIONS",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "MODAL_IDENTITY_TOKEN",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "NO_GCE_CHECK",
    "NO_PROXY",
    "SEMAPHORE_OIDC_TOKEN",
    "SPACELIFT_OIDC_TOKEN",
    "SPIFFE_ENDPOINT_SOCKET",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
    "TFC_WORKLOAD_IDENTITY_TOKEN",
    "TF_BUILD",
    "VAULT_ADDR",
    "VAULT_CONFIG_PATH",
    "VAULT_NAMESPACE",
    "VAULT_TOKEN",
    "VERCEL_OIDC_TOKEN",
    "WANDB_BASE_URL",
    "WANDB_CRED_AUDIENCE",
    "WANDB_CRED_CONFIG",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_ID_TOKEN",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
