//! Providers against stand-ins of their platforms, each accepted first by the vendor's own client.
//!
//! Needs `scripts/setup-stand-ins`; run all by `scripts/test-stand-ins`. The failures that need no second opinion
//! are data for `tests/providers.rs`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use wandb_cred::clock::Clock;
use wandb_cred::env::Env;
use wandb_cred::http::Http;
use wandb_cred::provider::{Config, Context, Error};
use wandb_cred::token::{Claims, IdentityToken};

#[tokio::test]
#[ignore = "needs scripts/setup-stand-ins"]
async fn spiffe_gets_the_svid_that_py_spiffe_gets() {
    let dir = tempfile::tempdir().expect("temp dir");
    let agent = Agent::start(dir.path(), "ok");
    judge(python("judge.py").args(["spiffe", &agent.address]));
    let env = [("SPIFFE_ENDPOINT_SOCKET", agent.address.as_str())];
    for config in ["", "spiffe-id = \"spiffe://example.org/trainer\""] {
        let token = fetch("spiffe", config, &env).await.expect("an SVID");
        assert_eq!(token.claims().sub.as_deref(), Some("spiffe://example.org/trainer"));
        assert_eq!(token.claims().aud, ["acme"]);
    }
    let stranger = fetch("spiffe", "spiffe-id = \"spiffe://example.org/other\"", &env).await;
    assert!(matches!(stranger, Err(Error::Transient { .. })), "{stranger:?}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-stand-ins"]
async fn spiffe_chooses_by_hint_among_several() {
    let dir = tempfile::tempdir().expect("temp dir");
    let agent = Agent::start(dir.path(), "two");
    let env = [("SPIFFE_ENDPOINT_SOCKET", agent.address.as_str())];
    let sub = async |config| fetch("spiffe", config, &env).await.map(|token| token.claims().sub.clone());
    assert_eq!(sub("").await.expect("the first").as_deref(), Some("spiffe://example.org/trainer"));
    let external = sub("hint = \"external\"").await.expect("by hint");
    assert_eq!(external.as_deref(), Some("spiffe://example.org/batch"));
    let none = sub("hint = \"gone\"").await;
    assert!(matches!(none, Err(Error::Misconfigured { .. })), "{none:?}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-stand-ins"]
async fn spiffe_refusals_have_their_classes_and_leave_nothing_behind() {
    for (behaviour, class) in [
        ("INVALID_ARGUMENT", "misconfigured"),
        ("UNIMPLEMENTED", "misconfigured"),
        ("UNAUTHENTICATED", "rejected"),
        ("PERMISSION_DENIED", "transient"),
        ("UNAVAILABLE", "transient"),
        ("INTERNAL", "transient"),
        ("RESOURCE_EXHAUSTED", "transient"),
        ("none", "transient"),
        ("silent", "transient"),
    ] {
        let dir = tempfile::tempdir().expect("temp dir");
        let agent = Agent::start(dir.path(), behaviour);
        let env = [("SPIFFE_ENDPOINT_SOCKET", agent.address.as_str())];
        let started = tokio::time::Instant::now();
        let error = fetch("spiffe", "timeout = \"700ms\"", &env).await.expect_err(behaviour);
        assert!(started.elapsed() < Duration::from_secs(3), "{behaviour} took {:?}", started.elapsed());
        assert_eq!(class_of(&error), class, "{behaviour}: {error}");
        assert!(!error.to_string().contains("planted"), "{error}");
        // The connection's task ends with the call: nothing keeps the runtime awake.
        let metrics = tokio::runtime::Handle::current().metrics();
        let deadline = started + Duration::from_secs(3);
        while metrics.num_alive_tasks() > 0 {
            assert!(tokio::time::Instant::now() < deadline, "{behaviour}: a task was left behind");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs scripts/setup-stand-ins"]
async fn kubernetes_asks_for_a_token_as_the_official_client_does() {
    let dir = tempfile::tempdir().expect("temp dir");
    let api = Agent::python("kubernetes_api.py", &[&dir.path().display().to_string()]);
    judge(python("judge.py").arg("kubernetes").arg(dir.path()).arg(&api.address));
    let env = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", api.address.as_str())];
    let account = format!("account-dir = \"{}\"\n", dir.path().display());
    let ask = async |more: &str| fetch("kubernetes", &format!("{account}{more}"), &env).await;

    let token = ask("lifetime = \"20m\"").await.expect("a token");
    let Claims { sub, aud, exp, iat, other, .. } = token.claims();
    assert_eq!(sub.as_deref(), Some("system:serviceaccount:ml:trainer"));
    assert_eq!(*aud, ["acme"]);
    assert_eq!(exp.zip(*iat).map(|(exp, iat)| exp - iat), Some(1200.0));
    assert_eq!(other["kubernetes.io"]["pod"]["uid"], "7c1f-pod", "bound to the pod");
    let unbound = ask("bind-to-pod = false").await.expect("a token");
    assert!(unbound.claims().other["kubernetes.io"].get("pod").is_none());

    for (more, class, says) in [
        ("service-account = \"forbidden\"", "misconfigured", "kubectl create role"),
        ("service-account = \"missing\"", "misconfigured", "kubectl get serviceaccount missing -n ml"),
        ("service-account = \"busy\"", "transient", "too many requests"),
    ] {
        let error = ask(more).await.expect_err(more);
        assert_eq!(class_of(&error), class, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        if let Error::Transient { retry_after, .. } = error {
            assert_eq!(retry_after, Some(Duration::from_secs(7)));
        }
    }
    std::fs::write(dir.path().join("token"), forged()).expect("written");
    let error = ask("").await.expect_err("a forged token");
    assert_eq!(class_of(&error), "rejected", "{error}");
    assert!(!error.to_string().contains("eyJ"));
}

#[tokio::test]
#[ignore = "needs scripts/setup-stand-ins"]
async fn kubernetes_trusts_the_clusters_own_authority_and_no_other() {
    let (dir, other) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
    let api = Agent::python("kubernetes_api.py", &[&dir.path().display().to_string()]);
    let _other = Agent::python("kubernetes_api.py", &[&other.path().display().to_string()]);
    std::fs::copy(other.path().join("ca.crt"), dir.path().join("ca.crt")).expect("copied");
    let env = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", api.address.as_str())];
    let error = fetch("kubernetes", &format!("account-dir = \"{}\"", dir.path().display()), &env).await;
    let error = error.expect_err("another authority");
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-stand-ins"]
async fn github_actions_gets_the_token_that_the_toolkit_gets() {
    let service = Agent::python("ci_services.py", &[]);
    let url = format!("{}/github/idtoken?api-version=2.0", service.address);
    let env =
        [("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token")];
    judge(node("judge_actions.mjs").envs(env));
    let token = fetch("github-actions", "", &env).await.expect("a token");
    assert_eq!(token.claims().sub.as_deref(), Some("repo:acme/train:ref:refs/heads/main"));
    let error = fetch("github-actions", "", &[env[0], (env[1].0, "another")]).await.expect_err("refused");
    assert_eq!(class_of(&error), "rejected", "{error}");
}

#[tokio::test]
#[ignore = "needs scripts/setup-stand-ins"]
async fn buildkite_has_a_subject_that_does_not_change_with_the_commit() {
    let service = Agent::python("ci_services.py", &[]);
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
#[ignore = "needs scripts/setup-stand-ins"]
async fn client_credentials_pass_a_certified_provider_each_way() {
    let dir = tempfile::tempdir().expect("temp dir");
    let op = Agent::spawn(node("op.mjs").arg(dir.path()));
    let base = |client: &str, proof: &str| {
        let resource = "resource = \"https://wandb.example/acme\"\nscopes = [\"wandb\"]";
        let proof = proof.replace("DIR", &dir.path().display().to_string());
        format!("issuer = \"{}\"\nclient-id = \"{client}\"\n{resource}\n{proof}\n", op.address)
    };
    let ask = async |client, proof| fetch("client-credentials", &base(client, proof), &[]).await;
    for (client, proof) in [
        ("basic", "client-secret-file = \"DIR/secret\""),
        ("post", "client-secret-file = \"DIR/secret\"\nauth = \"post\""),
        ("key", "private-key-file = \"DIR/rsa.pem\"\nkey-id = \"rsa\""),
        ("key", "private-key-file = \"DIR/ec.pem\"\nkey-id = \"ec\"\nalgorithm = \"ES256\""),
    ] {
        let token = ask(client, proof).await.unwrap_or_else(|error| panic!("{client} {proof}: {error}"));
        assert_eq!(token.claims().aud, ["acme"]);
        assert_eq!(token.claims().iss.as_deref(), Some(op.address.as_str()));
        ask(client, proof).await.expect("a second time: the assertion's jti is new");
    }
    let error = ask("key", "private-key-file = \"DIR/stranger.pem\"").await.expect_err("not its key");
    assert_eq!(class_of(&error), "rejected", "{error}");
    let error = ask("key", "private-key-file = \"DIR/ec.pem\"").await.expect_err("another kind of key");
    assert!(error.to_string().contains("`algorithm`"), "{error}");

    let opaque = base("basic", "client-secret-file = \"DIR/secret\"").replace("resource = ", "audience = ");
    let error = fetch("client-credentials", &opaque, &[]).await.expect_err("an opaque token");
    assert!(error.to_string().contains("not a JWT"), "{error}");
}

#[test]
#[ignore = "needs iproute2 and the right to make a network namespace"]
fn a_metadata_address_that_is_a_black_hole_holds_nothing_up() {
    // In a network of its own, where what is sent to link-local addresses vanishes without an answer.
    let script = "ip link set lo up && ip link add hole type veth peer name end && ip link set hole up \
                  && ip link set end up && ip addr add 169.254.1.1/16 dev hole \
                  && ip neigh add 169.254.169.254 lladdr 02:00:00:00:00:01 dev hole && exec \"$0\" init --dry-run";
    let dir = tempfile::tempdir().expect("temp dir");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script, env!("CARGO_BIN_EXE_wandb-credd")]).env_clear();
    command.env("PATH", std::env::var("PATH").unwrap_or_default()).env("HOME", dir.path());
    let started = Clock::system().now().boot;
    let output = command.output().expect("unshare runs");
    let took = Clock::system().now().boot - started;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(took > Duration::from_millis(400), "it was no black hole: {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// A stand-in that runs until this is dropped.
struct Agent {
    address: String,
    child: Child,
    /// Closing it tells the stand-in to end, also when the test process dies.
    _stdin: ChildStdin,
}

impl Agent {
    fn start(dir: &Path, behaviour: &str) -> Self {
        let socket = dir.join("agent.sock").display().to_string();
        Self::python("spiffe_agent.py", &[&socket, behaviour])
    }

    fn python(script: &str, args: &[&str]) -> Self {
        Self::spawn(python(script).args(args))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let stdin = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("a line").expect("text");
        let address = line.strip_prefix("ready ").expect("ready").to_owned();
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { address, child, _stdin: stdin }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn python(script: &str) -> Command {
    let mut command = Command::new(root().join(".test/venvs/stand-ins/bin/python"));
    command.arg(root().join("tests/stand_ins").join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(root().join("tests/stand_ins").join(script)).current_dir(root().join(".test/npm-stand-ins"));
    command
}

/// The vendor's client must accept the stand-in first.
fn judge(command: &mut Command) {
    let output = command.output().expect("the judge runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the vendor's own client refuses the stand-in: {said}");
}

async fn fetch(kind: &str, config: &str, env: &[(&str, &str)]) -> Result<IdentityToken, Error> {
    let table = format!("[{kind}]\n{config}");
    let config: Config = toml::from_str(&table).unwrap_or_else(|why| panic!("{table}: {why}"));
    let clock = Clock::system();
    let context = Context {
        profile: "test".into(),
        audience: Some("acme".into()),
        base_url: None,
        env: Env::fixed(env.iter().copied()),
        http: Http::new(clock.clone()),
        clock,
    };
    config.build(context)?.fetch().await
}

fn class_of(error: &Error) -> &'static str {
    match error {
        Error::Transient { .. } => "transient",
        Error::NeedsLogin { .. } => "needs-login",
        Error::Rejected { .. } => "rejected",
        Error::Misconfigured { .. } => "misconfigured",
        Error::Expired { .. } => "expired",
    }
}

/// A pod's token that no cluster signed.
fn forged() -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let exp = Clock::system().now().wall.as_second() + 600;
    let claims = format!(r#"{{"sub":"system:serviceaccount:ml:trainer","exp":{exp}}}"#);
    format!("{}.{}.c2ln", encode(r#"{"alg":"ES256"}"#), encode(&claims))
}
