//! The cloud providers against a stand-in that the vendors' own clients accept first, request by request: where
//! the two differ in method, path, query, headers or body, ours is wrong.
//!
//! Needs `scripts/setup-vendors`; run all by `scripts/test-vendors`. Failures are data for `tests/providers.rs`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use wandb_cred::clock::Clock;
use wandb_cred::env::Env;
use wandb_cred::error::{Error, Kind};
use wandb_cred::http::Http;
use wandb_cred::provider::cloud::{aws, azure, gcp};
use wandb_cred::provider::{Config, Context};
use wandb_cred::token::{Expires as _, IdentityToken};

#[tokio::test]
#[ignore = "needs scripts/setup-vendors"]
async fn gcp_asks_as_google_auth_does() {
    let cloud = Cloud::start();
    let host = cloud.url.trim_start_matches("http://").to_owned();
    let vars = [("GCE_METADATA_HOST", host.as_str()), ("GCE_METADATA_IP", host.as_str())];
    let token = cloud.compare(&["gcp"], "gcp", "", &vars).await;
    assert_eq!(token.claims().iss.as_deref(), Some("https://accounts.google.com"));
    assert_eq!(token.claims().email.as_deref(), Some("a@p.iam.gserviceaccount.com"));

    judge(&["gcp-probe"], &vars);
    let theirs = cloud.recorded().await;
    gcp::probe(&context(&vars)).await.expect("recognised");
    assert_eq!(cloud.recorded().await, theirs);
}

#[tokio::test]
#[ignore = "needs scripts/setup-vendors"]
async fn azure_asks_as_azure_identity_does_on_every_platform() {
    let cloud = Cloud::start();
    let (app, ml, arc) =
        (format!("{}/msi/token", cloud.url), format!("{}/MSI/auth", cloud.url), format!("{}/arc", cloud.url));
    let platforms = [
        vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", cloud.url.as_str())],
        vec![("IDENTITY_ENDPOINT", app.as_str()), ("IDENTITY_HEADER", "app-service-header")],
        vec![("MSI_ENDPOINT", ml.as_str()), ("MSI_SECRET", "ml-secret")],
    ];
    for vars in &platforms {
        for (theirs, ours) in [
            (None, ""),
            (Some("client_id=c-1"), "client-id = \"c-1\""),
            (Some("object_id=o-1"), "object-id = \"o-1\""),
            (Some("resource_id=/subscriptions/x/y"), "resource-id = \"/subscriptions/x/y\""),
        ] {
            let mut judged = vec!["azure"];
            judged.extend(theirs);
            let token = cloud.compare(&judged, "azure", ours, vars).await;
            let wait = token.renewal().not_before_expiry.expect("a day's token");
            assert!(wait.abs_diff(Duration::from_secs(43_200)) < Duration::from_secs(60), "{wait:?}");
        }
    }
    azure::probe(&context(&platforms[0])).await.expect("recognised");

    // The key's folder is fixed, so our own second request is made in the namespace below. The first is the same.
    let tokens = tempfile::tempdir().expect("temp dir");
    std::fs::write(tokens.path().join("proof.key"), "arc-key-file-content").expect("written");
    let vars = [("IDENTITY_ENDPOINT", arc.as_str()), ("IMDS_ENDPOINT", cloud.url.as_str())];
    cloud.recorded().await;
    judge(&["azure-arc", &tokens.path().display().to_string(), "object_id=o-1"], &vars);
    let theirs = cloud.recorded().await;
    let error = fetch("azure", "object-id = \"o-1\"", &vars).await.expect_err("no such key here");
    assert!(error.to_string().contains("/var/opt/azcmagent/tokens/proof.key"), "{error}");
    assert_eq!(cloud.recorded().await[0], theirs[0]);
}

#[tokio::test]
#[ignore = "needs scripts/setup-vendors"]
async fn aws_asks_and_signs_as_botocore_does_whatever_the_credentials_are() {
    let cloud = Cloud::start();
    let dir = tempfile::tempdir().expect("temp dir");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let home = dir.path().display().to_string();
    let keys = "aws_access_key_id = AKIDENV\naws_secret_access_key = secret/env+key\n";
    let printed = r#"{"Version": 1, "AccessKeyId": "ASIAROLE", "SecretAccessKey": "secret/role+key",
                      "SessionToken": "session/of+role==", "Expiration": "2099-01-01T00:00:00Z"}"#;
    let printed = file("printed.json", printed);
    let config = format!(
        "# a comment\n[default]\nregion = eu-central-1\n[profile in-config]\nregion: eu-west-3\n{keys}\
         [profile \"with process\"]\nregion = us-gov-west-1\n\
         credential_process = /bin/sh -c 'cat \"$0\"' \"{printed}\"\ns3 =\n  addressing_style = path\n\
         [profile web]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/web\n\
         web_identity_token_file = {home}/pod\nrole_session_name = session\n\
         [profile in-credentials]\nregion = ap-south-1\n"
    );
    let config = file("config", &config);
    let credentials = file("credentials", &format!("[in-credentials]\n{keys}"));
    let (pod, agent) = (file("pod", "pod-token"), file("agent", "agent-token"));
    let container = format!("{}/v1/credentials", cloud.url);
    let common = [
        ("AWS_ENDPOINT_URL_STS", cloud.url.as_str()),
        ("HOME", home.as_str()),
        ("AWS_CONFIG_FILE", config.as_str()),
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud.url.as_str()),
    ];
    let key = [("AWS_ACCESS_KEY_ID", "AKIDENV"), ("AWS_SECRET_ACCESS_KEY", "secret/env+key")];
    let session = [
        ("AWS_ACCESS_KEY_ID", "ASIAROLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret/role+key"),
        ("AWS_SESSION_TOKEN", "session/of+role=="),
    ];
    let irsa = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", pod.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
        ("AWS_ROLE_SESSION_NAME", "name"),
    ];
    let eks = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", agent.as_str()),
    ];
    let by_name = |name| [("AWS_PROFILE", name)];
    type Chain<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)]);
    let chains: [Chain<'_>; 11] = [
        (None, &key),
        (None, &session),
        (None, &irsa),
        (None, &eks),
        (None, &[]),
        (None, &by_name("in-config")),
        (None, &by_name("in-credentials")),
        (None, &by_name("with process")),
        (None, &by_name("web")),
        (Some("in-config"), &session),
        (Some("web"), &irsa),
    ];
    let tags = "tags = { team = \"r&d ünits\", tier = \"1\" }\n";
    for (profile, more) in chains {
        let vars: Vec<_> = common.iter().chain(more).copied().collect();
        let mut judged = vec!["aws"];
        judged.extend(profile);
        let ours = profile.map_or(tags.to_owned(), |profile| format!("{tags}profile = \"{profile}\"\n"));
        let token = cloud.compare(&judged, "aws", &ours, &vars).await;
        assert_eq!(token.claims().iss.as_deref(), Some("https://x.tokens.sts.global.api.aws"));
    }
    let wrong = [common.as_slice(), &[key[0], (key[1].0, "another")]].concat();
    let error = fetch("aws", "", &wrong).await.expect_err("a wrong signature");
    assert_eq!(error.kind, Kind::Rejected, "{error:?}");
    aws::probe(&context(&common)).await.expect("recognised");
}

/// The default addresses, unchanged, in a network and a mount namespace of our own.
#[test]
#[ignore = "needs scripts/setup-vendors, iproute2 and the right to make namespaces"]
fn default_addresses_work_and_dns_cannot_lead_elsewhere() {
    let may = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: this user may not make network and mount namespaces");
        return;
    }
    let script = r#"set -e
        ip link set lo up
        for address in 169.254.169.254 169.254.170.2 203.0.113.7; do ip addr add $address/32 dev lo; done
        mount -t tmpfs tmpfs /var/opt
        mount -t tmpfs tmpfs /run
        mkdir -p /var/opt/azcmagent/tokens
        printf arc-key-file-content >/var/opt/azcmagent/tokens/proof.key
        printf '127.0.0.1 localhost\n169.254.169.254 metadata.google.internal\n203.0.113.7 evil.internal\n169.254.169.254 mixed.internal\n203.0.113.7 mixed.internal\n' >/var/opt/hosts
        mount --bind /var/opt/hosts /etc/hosts
        exec "$0" --exact inside_the_namespace --ignored --nocapture"#;
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().expect("this program"))
        .env("WANDB_CRED_TEST_NAMESPACE", "yes")
        .output()
        .expect("unshare runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(said.contains("all of them"), "{said}");
}

#[tokio::test]
#[ignore = "the inner half of the test above"]
async fn inside_the_namespace() {
    if std::env::var("WANDB_CRED_TEST_NAMESPACE").is_err() {
        return;
    }
    let cloud = Cloud::at("169.254.169.254", 80);
    let agent = Cloud::at("169.254.170.2", 80);
    let public = Cloud::at("203.0.113.7", 80);
    let dir = tempfile::tempdir().expect("temp dir");
    let home = dir.path().display().to_string();

    fetch("gcp", "", &[]).await.expect("metadata.google.internal");
    gcp::probe(&context(&[])).await.expect("Google");
    cloud.recorded().await;

    // mTLS: google-auth accepts the stand-in's; then nothing of ours goes to the plain port.
    let strict = [("GCE_METADATA_MTLS_MODE", "strict")];
    assert!(
        fetch("gcp", "", &strict).await.expect_err("no files").to_string().contains("/run/google-mds-mtls")
    );
    let secure = Cloud::spawn(&["169.254.169.254", "443", "/run/google-mds-mtls"]);
    judge(&["gcp"], &strict);
    fetch("gcp", "", &strict).await.expect("by mTLS");
    fetch("gcp", "mtls = \"default\"", &[]).await.expect("by mTLS, since it is there");
    assert!(cloud.recorded().await.is_empty(), "plain http was used");
    let stranger = std::fs::read("/run/google-mds-mtls/root.crt").expect("readable");
    drop(secure);
    let _another = Cloud::spawn(&["169.254.169.254", "443", "/run/google-mds-mtls"]);
    std::fs::write("/run/google-mds-mtls/root.crt", stranger).expect("written");
    let error = fetch("gcp", "", &strict).await.expect_err("a server of another authority");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(cloud.recorded().await.is_empty(), "plain http was used");
    fetch("gcp", "mtls = \"default\"", &[]).await.expect("plain http, when mTLS fails");

    fetch("azure", "", &[]).await.expect("Azure's metadata service");
    azure::probe(&context(&[])).await.expect("Azure");
    let local = Cloud::start();
    let arc = format!("{}/arc", local.url);
    let arc = [("IDENTITY_ENDPOINT", arc.as_str()), ("IMDS_ENDPOINT", local.url.as_str())];
    fetch("azure", "client-id = \"c\"", &arc).await.expect("the Arc agent, with its key");

    let sts = [("AWS_ENDPOINT_URL_STS", local.url.as_str()), ("HOME", home.as_str())];
    fetch("aws", "", &sts).await.expect("the instance role, its region too");
    aws::probe(&context(&[])).await.expect("AWS");
    let ecs = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v1/credentials"), ("AWS_REGION", "eu-west-1")];
    let ecs = [ecs.as_slice(), &sts, &[("AWS_CONTAINER_AUTHORIZATION_TOKEN", "agent-token")]].concat();
    fetch("aws", "", &ecs).await.expect("the ECS agent");
    assert_eq!(agent.recorded().await.len(), 1);
    cloud.recorded().await;

    // Names that lead to a public address, alone or among others.
    for host in ["evil.internal", "mixed.internal"] {
        let url = format!("http://{host}");
        for (kind, vars) in [
            ("gcp", vec![("GCE_METADATA_HOST", host)]),
            ("azure", vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())]),
            ("azure", vec![("IDENTITY_ENDPOINT", url.as_str()), ("IDENTITY_HEADER", "planted")]),
            ("aws", vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()), sts[0], sts[1]]),
            ("aws", vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), sts[0], sts[1]]),
        ] {
            let error = fetch(kind, "", &vars).await.expect_err(host);
            assert!(!error.to_string().contains("planted"), "{error}");
        }
    }
    let unjudged = public.recorded().await;
    assert!(unjudged.is_empty() && cloud.recorded().await.is_empty(), "{unjudged:?}");
    println!("all of them");
}

/// The stand-in; ends when this is dropped.
struct Cloud {
    url: String,
    child: Child,
    /// Closing it tells the stand-in to end, also when the test process dies.
    _stdin: ChildStdin,
}

impl Cloud {
    fn start() -> Self {
        Self::at("127.0.0.1", 0)
    }

    fn at(address: &str, port: u16) -> Self {
        Self::spawn(&[address, &port.to_string()])
    }

    fn spawn(arguments: &[&str]) -> Self {
        let mut child = python("clouds.py")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdin = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("a line").expect("text");
        let url = line.strip_prefix("ready ").expect("ready").to_owned();
        Self { url, child, _stdin: stdin }
    }

    /// What was asked since the last time.
    async fn recorded(&self) -> Vec<serde_json::Value> {
        // Not by our own client: it would refuse the public address that one test uses.
        let url = self.url.clone();
        let output =
            python_c("import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())")
                .arg(format!("{url}/recorded"))
                .output()
                .expect("python runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The vendor's client, then ours, under the same variables: same requests, and a token.
    async fn compare(
        &self,
        judged: &[&str],
        kind: &str,
        config: &str,
        vars: &[(&str, &str)],
    ) -> IdentityToken {
        self.recorded().await;
        judge(judged, vars);
        let theirs = self.recorded().await;
        assert!(!theirs.is_empty(), "{judged:?} asked nobody");
        let token = fetch(kind, config, vars).await.unwrap_or_else(|error| panic!("{judged:?}: {error}"));
        let ours = self.recorded().await;
        // The day and the moment are in the signature's scope; the vendor's call may have been a day before ours.
        assert_eq!(ours, theirs, "{judged:?} {config}");
        assert_eq!(token.claims().aud, [AUDIENCE]);
        token
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn judge(arguments: &[&str], vars: &[(&str, &str)]) {
    let output =
        python("judge_clouds.py").args(arguments).envs(vars.iter().copied()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the vendor's own client refuses the stand-in: {said}");
}

async fn fetch(kind: &str, config: &str, vars: &[(&str, &str)]) -> Result<IdentityToken, Error> {
    let table = format!("[{kind}]\n{config}");
    let config: Config = toml::from_str(&table).unwrap_or_else(|why| panic!("{table}: {why}"));
    config.build(context(vars))?.fetch().await
}

fn context(vars: &[(&str, &str)]) -> Context {
    let clock = Clock::system();
    Context {
        profile: "test".into(),
        audience: Some(AUDIENCE.into()),
        base_url: None,
        env: Env::fixed(vars.iter().copied()),
        http: Http::new(clock.clone()),
        clock,
    }
}

/// Nothing of this process' environment, so that a developer's own clouds stay out of it.
fn python_c(code: &str) -> Command {
    let mut command = Command::new(root().join(".test/venvs/vendors/bin/python"));
    command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1").args(["-c", code]);
    command
}

fn python(script: &str) -> Command {
    let mut command = Command::new(root().join(".test/venvs/vendors/bin/python"));
    command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1").env("PATH", "/usr/bin:/bin");
    command.arg(root().join("tests/stand_ins").join(script));
    command
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

const AUDIENCE: &str = "api://acme";
