//! The planted faults, one row each.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::stand_in::{CERTIFICATE, StandIn, answer, now, unsigned};
use super::world::{World, mode};

struct Fault {
    name: &'static str,
    plant: fn(&mut World),
    /// The steps that must fail, in the doctor's order, and no other: the planted one, and what it breaks.
    fails: &'static [&'static str],
    /// The steps that must warn, and no other.
    warns: &'static [&'static str],
    exit: i32,
    /// Words that the planted step must say, the remedy's included.
    at: &'static str,
    says: &'static [&'static str],
}

/// Shorter rows: a fault that fails one step for good.
const fn fails(
    name: &'static str,
    plant: fn(&mut World),
    at: &'static [&'static str],
    exit: i32,
    says: &'static [&'static str],
) -> Fault {
    Fault { name, plant, fails: at, warns: &[], exit, at: at[0], says }
}

const fn warns(
    name: &'static str,
    plant: fn(&mut World),
    at: &'static [&'static str],
    says: &'static [&'static str],
) -> Fault {
    Fault { name, plant, fails: &[], warns: at, exit: 0, at: at[0], says }
}

const FAULTS: &[Fault] = &[
    // Configuration.
    fails(
        "no file",
        |world| drop(world.env.insert("WANDB_CRED_CONFIG", "/nonexistent/config.toml".into())),
        &["configuration"],
        78,
        &["/nonexistent/config.toml", "wandb-cred init"],
    ),
    fails(
        "a misspelt key",
        |world| {
            world.config = Some(
                "[profile.work]\naudeince = \"acme\"\n[profile.work.provider.file]\npath = \"/x\"\n".into(),
            );
        },
        &["configuration"],
        78,
        &[":2:1", "did you mean `audience`?", "fix that line"],
    ),
    fails(
        "plain http",
        |world| world.base_url = Some("http://wandb.example".into()),
        &["configuration"],
        78,
        &["https", "wandb-cred check"],
    ),
    fails(
        "an unknown profile",
        |world| world.arguments = vec!["--profile", "wrok"],
        &["configuration"],
        78,
        &["wrok", "work"],
    ),
    fails(
        "several profiles and no default",
        |world| world.provider += "[profile.lab.provider.file]\npath = \"/x\"\n",
        &["configuration"],
        78,
        &["default-profile", "--profile NAME", "lab, work"],
    ),
    fails(
        "a file that others can write",
        |world| {
            world.set_up();
            mode(&world.path("config.toml"), 0o666);
        },
        &["configuration"],
        78,
        &["mode 0666", "chmod go-w"],
    ),
    // Folders.
    fails(
        "an open runtime folder",
        |world| world.folder("run/wandb-cred", 0o755),
        &["folders"],
        78,
        &["mode 0755", "chmod 700"],
    ),
    fails(
        "a profile's folder that is a link",
        |world| {
            world.folder("run/wandb-cred/profiles", 0o700);
            std::os::unix::fs::symlink("/tmp", world.path("run/wandb-cred/profiles/work")).expect("linked");
        },
        &["folders"],
        78,
        &["is not a folder", "remove it"],
    ),
    fails(
        "a socket's path that is too long",
        |world| {
            drop(
                world.env.insert(
                    "XDG_RUNTIME_DIR",
                    format!("{}/{}", world.home.path().display(), "x".repeat(100)),
                ),
            );
        },
        &["folders"],
        78,
        &["over the limit", "WANDB_CRED_SOCKET"],
    ),
    // Daemon and service.
    fails(
        "something else at the socket",
        |world| listen(world, Some("SSH-2.0-OpenSSH\r\n\r\n")),
        &["daemon"],
        69,
        &["is not a wandb-credd", "Restart it"],
    ),
    fails(
        "a daemon that hangs",
        |world| listen(world, None),
        &["daemon"],
        69,
        &["did not answer within", "restart"],
    ),
    warns(
        "a daemon of an older version",
        |world| {
            let body = json!({ "version": "0.0.1", "pid": 7, "started_at": "2026-01-01T00:00:00Z", "socket": "/s", "config": null, "profiles": [] });
            let body = body.to_string();
            let text = format!("HTTP/1.1 200 x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            listen(world, Some(Box::leak(text.into_boxed_str())));
        },
        &["daemon"],
        &["version 0.0.1", "kill 7"],
    ),
    fails(
        "a unit whose program is gone",
        |world| {
            world.write("run/systemd/private", "");
            world.write(
                ".config/systemd/user/wandb-cred.service",
                "[Service]\nExecStart=/opt/old/wandb-credd run\n",
            );
        },
        &["service"],
        78,
        &["/opt/old/wandb-credd", "wandb-cred service install"],
    ),
    fails(
        "a unit that failed",
        |world| {
            world.write("run/systemd/private", "");
            world.write(".config/systemd/user/wandb-cred.service", "[Service]\nExecStart=/bin/sh run\n");
            world.program("systemctl", "echo failed");
        },
        &["service"],
        69,
        &["socket failed", "journalctl --user -u wandb-cred.service", "reset-failed"],
    ),
    fails(
        "a socket unit that was stopped",
        |world| {
            world.write("run/systemd/private", "");
            world.write(".config/systemd/user/wandb-cred.service", "[Service]\nExecStart=/bin/sh run\n");
            world.program("systemctl", "echo inactive");
        },
        &["service"],
        69,
        &["its socket is inactive", "enable --now wandb-cred.socket"],
    ),
    // Provider.
    fails(
        "no file to read",
        |world| world.provider = "[provider.file]\npath = \"/nonexistent/jwt\"\n".into(),
        &["provider"],
        75,
        &["/nonexistent/jwt", "ls -l"],
    ),
    fails(
        "no program to run",
        |world| world.provider = "[provider.command]\nargv = [\"/nonexistent/gcloud\"]\n".into(),
        &["provider"],
        78,
        &["/nonexistent/gcloud", "by hand"],
    ),
    fails(
        "a GitHub job without permission",
        |world| {
            world.provider = "[provider.github-actions]\n".into();
            world.env.insert("GITHUB_ACTIONS", "true".into());
        },
        &["provider"],
        78,
        &["id-token: write"],
    ),
    fails(
        "a GitLab job without id_tokens",
        |world| world.provider = "[provider.gitlab]\n".into(),
        &["provider"],
        78,
        &["id_tokens", "aud: acme"],
    ),
    fails(
        "nobody has signed in",
        |world| {
            let url = world.issuer.http.url.clone();
            world.provider =
                format!("[provider.oidc]\nissuer = \"{url}\"\nclient-id = \"c\"\ntoken-store = \"file\"\n");
        },
        &["provider"],
        77,
        &["wandb-cred login"],
    ),
    fails(
        "a client that its issuer refuses",
        |world| {
            world.issuer.http.on("/token", answer(401, json!({ "error": "invalid_client" })));
            let url = world.issuer.http.url.clone();
            let secret = world.write("client-secret", "planted-client-secret");
            world.provider = format!(
                "[provider.client-credentials]\nissuer = \"{url}\"\nclient-id = \"c\"\nclient-secret-file = \"{secret}\"\n"
            );
        },
        &["provider"],
        78,
        &["invalid_client", "Certificates & secrets"],
    ),
    // The JWT.
    fails(
        "an opaque token",
        |world| world.jwt = Some("planted-opaque-token".into()),
        &["jwt"],
        78,
        &["1 dot-separated", "JWT alone"],
    ),
    fails(
        "an encrypted JWT",
        |world| world.jwt = Some("a.b.c.d.e".into()),
        &["jwt"],
        78,
        &["5 dot-separated", "JWE"],
    ),
    fails(
        "an empty file",
        |world| world.jwt = Some("\n".into()),
        &["jwt"],
        75,
        &["is empty", "what writes it"],
    ),
    fails(
        "alg none",
        |world| world.jwt = Some(unsigned(json!({ "alg": "none" }), &world.claims, "")),
        &["jwt"],
        78,
        &["unsigned", "RS256 or ES256"],
    ),
    fails("no exp", |world| drop(remove(world, "exp")), &["jwt"], 78, &["`exp`"]),
    fails(
        "an expired JWT",
        |world| world.claims["exp"] = json!(now() - 5),
        &["lifetime"],
        75,
        &["expired at", "clock"],
    ),
    fails(
        "a JWT from the future",
        |world| {
            world.claims["nbf"] = json!(now() + 900);
            world.faults = Some(
                json!({ "exchange": { "status": 400, "body": "{\"error\":\"invalid_grant\",\"error_description\":\"not yet valid\"}" } }),
            );
        },
        &["lifetime", "exchange"],
        78,
        &["not valid before", "clock"],
    ),
    warns(
        "a JWT that lives for ten days",
        |world| world.claims["exp"] = json!(now() + 864_000),
        &["lifetime"],
        &["10 d", "an hour or less"],
    ),
    // Clocks.
    fails(
        "our clock is behind",
        |world| {
            world.own_wandb().skew(1230);
            world.issuer.http.skew(1230);
        },
        &["clock"],
        78,
        &["20 min", "behind", "timedatectl set-ntp true"],
    ),
    warns(
        "the issuer's clock is ahead",
        |world| {
            world.own_wandb().skew(0);
            world.issuer.http.skew(240);
        },
        &["clock"],
        &["differ by", "issuer's machine"],
    ),
    // Issuer.
    fails("no iss", |world| drop(remove(world, "iss")), &["issuer", "exchange"], 78, &["no `iss`"]),
    fails(
        "an iss that is a name",
        |world| world.claims["iss"] = json!("kubernetes/serviceaccount"),
        &["issuer", "exchange"],
        78,
        &["not a URL", "--service-account-issuer"],
    ),
    fails(
        "an iss by plain http",
        |world| world.claims["iss"] = json!("http://idp.example"),
        &["issuer", "exchange"],
        78,
        &["https only"],
    ),
    fails(
        "an issuer that only the cluster knows",
        |world| {
            world.claims["iss"] = json!("https://kubernetes.default.svc.cluster.local");
            // Nothing of this test leaves the machine.
            world.env.insert("HTTPS_PROXY", "http://127.0.0.1:9".into());
            world.base_url = Some("https://wandb.example".into());
        },
        &["issuer", "server"],
        78,
        &["cannot reach", "--service-account-jwks-uri"],
    ),
    fails(
        "no discovery document",
        |world| world.issuer.http.on(DISCOVERY, answer(404, "no")),
        &["issuer", "exchange"],
        78,
        &["status 404", "complete with its path"],
    ),
    fails(
        "a discovery document that asks for a sign-in",
        |world| world.issuer.http.on(DISCOVERY, answer(401, "{}")),
        &["issuer", "exchange"],
        78,
        &["status 401", "system:unauthenticated"],
    ),
    fails(
        "a page for a discovery document",
        |world| world.issuer.http.on(DISCOVERY, answer(200, "<html>")),
        &["issuer", "exchange"],
        78,
        &["not JSON"],
    ),
    fails(
        "a discovery document with a slash more",
        |world| world.issuer.discovery(json!({ "issuer": format!("{}/", world.issuer.http.url) })),
        &["issuer", "exchange"],
        78,
        &["differ by a slash", "identity provider's settings"],
    ),
    fails(
        "keys by plain http",
        |world| world.issuer.discovery(json!({ "jwks_uri": "http://idp.example/jwks" })),
        &["issuer", "exchange"],
        78,
        &["not https"],
    ),
    fails(
        "an issuer that is down",
        |world| world.claims["iss"] = json!(closed_port()),
        &["issuer", "exchange"],
        78,
        &["cannot connect", "HTTPS_PROXY"],
    ),
    // Signature.
    fails(
        "a key that is not published",
        |world| world.kid = "k2".into(),
        &["signature", "exchange"],
        78,
        &["\"k2\"", "k1", "changed its keys"],
    ),
    fails(
        "a signature of somebody else's",
        |world| world.jwt = Some(World::new().issuer.sign(&world.claims, "k1")),
        &["signature", "exchange"],
        78,
        &["none of the keys", "get a new JWT"],
    ),
    fails(
        "a shared secret",
        |world| world.jwt = Some(unsigned(json!({ "alg": "HS256", "kid": "k1" }), &world.claims, "c2ln")),
        &["signature", "exchange"],
        78,
        &["HS256", "shared secret", "RS256 or ES256"],
    ),
    fails(
        "no keys",
        |world| world.issuer.http.on("/jwks", answer(200, "{\"keys\":[]}")),
        &["signature", "exchange"],
        78,
        &["no usable key"],
    ),
    fails(
        "a key set that is not there",
        |world| world.issuer.http.on("/jwks", answer(404, "no")),
        &["signature", "exchange"],
        78,
        &["status 404", "key set"],
    ),
    // Subject.
    fails(
        "no subject",
        |world| drop(remove(world, "sub")),
        &["subject", "exchange"],
        78,
        &["no `sub`", "put a subject in"],
    ),
    warns(
        "white space in the subject",
        |world| subject(world, "svc-train "),
        &["subject"],
        &["\"svc-train \"", "white space", "exactly"],
    ),
    warns(
        "capital letters in an address",
        |world| subject(world, "Ada@example.com"),
        &["subject"],
        &["capital letters", "exactly"],
    ),
    warns(
        "a subject by branch (GitHub)",
        |world| subject(world, "repo:o/r:ref:refs/heads/main"),
        &["stable-subject"],
        &["branch", "repo:o/r:environment:NAME", "gh api"],
    ),
    warns(
        "a subject by commit (Buildkite)",
        |world| subject(world, "organization:o:pipeline:p:ref:refs/heads/main:commit:abc:step:s"),
        &["stable-subject"],
        &["every commit", "--subject-claim pipeline_id"],
    ),
    warns(
        "a subject by branch (GitLab)",
        |world| subject(world, "project_path:g/p:ref_type:branch:ref:main"),
        &["stable-subject"],
        &["ci_id_token_sub_claim_components"],
    ),
    warns(
        "a subject by person (CircleCI)",
        |world| subject(world, "org/1/project/2/user/3"),
        &["stable-subject"],
        &["triggers the job"],
    ),
    // Audience.
    fails(
        "another audience",
        |world| world.claims["aud"] = json!(["sts.amazonaws.com"]),
        &["audience"],
        78,
        &["sts.amazonaws.com", "\"acme\"", "[profile.work]"],
    ),
    fails(
        "an audience in other letters",
        |world| world.claims["aud"] = json!("Acme"),
        &["audience"],
        78,
        &["case and white space count"],
    ),
    fails(
        "no audience",
        |world| drop(remove(world, "aud")),
        &["audience"],
        78,
        &["no `aud`", "organization"],
    ),
    // The way to W&B.
    fails(
        "the page's address",
        |world| {
            let wandb = world.own_wandb();
            world.base_url = Some(format!("{}/home", wandb.url));
        },
        &["server"],
        78,
        &["a page", "set base-url = \"http://127.0.0.1:"],
    ),
    fails(
        "a certificate of an unknown authority",
        |world| drop(world.wandb_at(StandIn::start_tls())),
        &["server"],
        78,
        &["certificate", "SSL_CERT_FILE"],
    ),
    fails(
        "a certificate for another host",
        |world| {
            let wandb = world.wandb_at(StandIn::start_tls());
            let ca = world.write("ca.pem", CERTIFICATE);
            world.env.insert("SSL_CERT_FILE", ca);
            world.base_url = Some(wandb.url.replace("localhost", "127.0.0.1"));
        },
        &["server"],
        78,
        &["for another host", "base-url"],
    ),
    fails(
        "a redirect",
        |world| {
            world.own_wandb().on(
                "/graphql",
                answer(302, "").header("Location", "https://login.example/x?token=planted-query"),
            );
        },
        &["server"],
        78,
        &["redirects to https://login.example", "base-url"],
    ),
    fails(
        "a page in place of the API",
        |world| {
            world
                .own_wandb()
                .on("/graphql", answer(200, "<html>").header("Content-Type", "text/html; charset=utf-8"));
        },
        &["server"],
        78,
        &["text/html", "base-url"],
    ),
    fails(
        "a server that is busy",
        |world| world.own_wandb().on("/graphql", answer(503, "no")),
        &["server"],
        75,
        &["status 503", "try again"],
    ),
    fails(
        "nothing listens",
        |world| world.base_url = Some(closed_port()),
        &["server"],
        75,
        &["refused", "port included"],
    ),
    fails(
        "a proxy that wants a password",
        |world| world.own_wandb().on("/graphql", answer(407, "no")),
        &["server"],
        78,
        &["status 407", "NO_PROXY"],
    ),
    fails(
        "a proxy that is gone",
        |world| {
            let wandb = world.own_wandb();
            world.base_url = Some(wandb.url.replace("127.0.0.1", "localhost"));
            world.env.insert(
                "HTTP_PROXY",
                format!("http://u:planted-password@{}", closed_port().replace("http://", "")),
            );
            world.env.insert("NO_PROXY", "127.0.0.1".into());
        },
        &["server"],
        75,
        &["HTTP_PROXY is in use", "NO_PROXY"],
    ),
    warns(
        "a proxy that is no URL",
        |world| drop(world.env.insert("HTTP_PROXY", "::".into())),
        &["proxy"],
        &["not to a proxy URL", "http://proxy.example:3128"],
    ),
    // The exchange.
    fails(
        "a subject that W&B does not know",
        |world| world.claims["sub"] = json!("svc-other"),
        &["exchange"],
        78,
        &["\"svc-other\"", "Settings > Service accounts"],
    ),
    fails(
        "an issuer that W&B does not know",
        |world| {
            let other = World::new();
            world.claims["iss"] = json!(other.issuer.http.url);
            world.jwt = Some(other.issuer.sign(&world.claims, "k1"));
            world.kept.push(Box::new(other));
        },
        &["exchange"],
        78,
        &["not configured", "Set up JWT Issuer"],
    ),
    fails(
        "an audience that W&B does not know",
        |world| {
            world.audience = Some("wrong-organization");
            world.claims["aud"] = json!("wrong-organization");
        },
        &["exchange"],
        78,
        &["wrong-organization", "FEDERATED_AUTH_AUDIENCES"],
    ),
    fails(
        "W&B cannot read the JWT",
        |world| world.faults = Some(json!({ "exchange": "plain-text" })),
        &["exchange"],
        78,
        &["invalid JWT format", "encrypted"],
    ),
    fails(
        "W&B says no more than invalid_grant",
        |world| refuse(world, 400, json!({ "error": "invalid_grant" })),
        &["exchange"],
        78,
        &["one of these differs", "\"acme\"", "\"svc-train\""],
    ),
    fails(
        "no licence",
        |world| {
            refuse(
                world,
                403,
                json!({ "error": "access_denied", "error_description": "no license for identity federation" }),
            );
        },
        &["exchange"],
        78,
        &["Enterprise"],
    ),
    fails(
        "an old server",
        |world| refuse(world, 404, json!({})),
        &["exchange"],
        78,
        &["no token endpoint", "base-url"],
    ),
    fails(
        "W&B is busy",
        |world| world.faults = Some(json!({ "exchange": { "status": 503 } })),
        &["exchange"],
        75,
        &["503", "try again"],
    ),
    fails(
        "half an answer",
        |world| world.faults = Some(json!({ "exchange": "garbage" })),
        &["exchange"],
        75,
        &["no token response", "try again"],
    ),
    fails(
        "a source that gives a JWT twice",
        |world| {
            world.provider =
                format!("[provider.command]\nargv = [\"cat\", \"{}/jwt\"]\n", world.home.path().display());
            world.set_up();
            world.doctor(&[]);
        },
        &["exchange"],
        75,
        &["already used", "turn its own cache off"],
    ),
    warns(
        "a file's JWT that was used before",
        |world| {
            world.set_up();
            world.doctor(&[]);
        },
        &["exchange"],
        &["already used", "nothing is wrong with the path"],
    ),
    // After it.
    fails(
        "an access token that is refused",
        |world| world.faults = Some(json!({ "api": { "status": 401, "body": "{}" } })),
        &["api-call"],
        78,
        &["status 401", "Authorization header"],
    ),
    fails(
        "nobody behind the token",
        |world| world.own_wandb().on("/graphql", answer(200, "{\"data\":{\"viewer\":null}}")),
        &["api-call"],
        78,
        &["stands for nobody"],
    ),
    warns(
        "access tokens of 3 minutes",
        |world| world.sandbox.extend(["--token-life".into(), "180".into()]),
        &["token-life"],
        &["exchange of its own", "15 minutes"],
    ),
    warns(
        "a job that ends soon",
        |world| {
            let request = unsigned(json!({ "alg": "RS256" }), &json!({ "exp": now() + 1230 }), "c2ln");
            github(world, &request);
        },
        &["outlook"],
        &["20 min", "--need 72h"],
    ),
    // The SDK's environment.
    fails(
        "an API key and a token file",
        |world| {
            let file = world.write("own.jwt", &unsigned(json!({ "alg": "RS256" }), &world.claims, "c2ln"));
            world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file);
            world.env.insert("WANDB_API_KEY", "planted-api-key".into());
        },
        &["sdk-environment"],
        78,
        &["AuthenticationError", "unset WANDB_API_KEY"],
    ),
    warns(
        "an API key",
        |world| drop(world.env.insert("WANDB_API_KEY", "planted-api-key".into())),
        &["sdk-environment"],
        &["use that key", "unset it"],
    ),
    fails(
        "a token file that is not there",
        |world| drop(world.env.insert("WANDB_IDENTITY_TOKEN_FILE", "~/jwt".into())),
        &["sdk-environment"],
        78,
        &["~/jwt", "not expanded"],
    ),
    fails(
        "a token file of a daemon that is gone",
        |world| {
            let file = world.path("run/wandb-cred/profiles/work/identity-token");
            world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file.to_str().expect("text").into());
        },
        &["sdk-environment"],
        78,
        &["is gone", "wandb-cred exec"],
    ),
    fails(
        "a token file without token",
        |world| token_file(world, "{}".len(), "planted text"),
        &["sdk-environment"],
        78,
        &["holds no JWT"],
    ),
    warns(
        "a line end after the JWT",
        |world| token_file(world, 0, "\n"),
        &["sdk-environment"],
        &["white space", "printf"],
    ),
    fails(
        "a ~ in the credentials file",
        |world| drop(world.env.insert("WANDB_CREDENTIALS_FILE", "~/c.json".into())),
        &["sdk-environment"],
        78,
        &["does not expand ~", "$HOME"],
    ),
    fails(
        "a credentials file in no folder",
        |world| drop(world.env.insert("WANDB_CREDENTIALS_FILE", "/nonexistent/c.json".into())),
        &["sdk-environment"],
        78,
        &["mkdir -p -m 700 /nonexistent"],
    ),
    warns(
        "a credentials file that is broken",
        |world| {
            let file = world.write("c.json", "{\"credentials\":");
            world.env.insert("WANDB_CREDENTIALS_FILE", file);
        },
        &["sdk-environment"],
        &["not JSON", "remove the file"],
    ),
    warns(
        "another server",
        |world| drop(world.env.insert("WANDB_BASE_URL", "https://api.wandb.ai".into())),
        &["sdk-environment"],
        &["https://api.wandb.ai", "export WANDB_BASE_URL="],
    ),
    warns(
        "a slash after the server",
        |world| {
            let wandb = world.own_wandb();
            world.env.insert("WANDB_BASE_URL", format!("{}/", wandb.url));
        },
        &["sdk-environment"],
        &["ends with a slash"],
    ),
    fails(
        "a server that the SDK refuses",
        |world| drop(world.env.insert("WANDB_BASE_URL", "http+unix://x".into())),
        &["sdk-environment"],
        78,
        &["WANDB_BASE_URL", "export"],
    ),
];

#[test]
fn every_planted_fault_is_named_at_its_step_with_its_remedy() {
    let only = std::env::var("CASE").ok();
    let rows: Vec<_> =
        FAULTS.iter().filter(|row| only.as_ref().is_none_or(|only| row.name.contains(only))).collect();
    assert!(only.is_some() || rows.len() >= 30);
    let (next, failures) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = judge(row) {
                        failures.lock().expect("not poisoned").push(format!("{}: {why}", row.name));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("not poisoned");
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

fn judge(row: &Fault) -> Result<(), String> {
    let mut world = World::new();
    (row.plant)(&mut world);
    if !world.path("config.toml").exists() {
        world.set_up();
    }
    let visit = world.doctor(&["--json"]);
    let told = || format!("\n{}{}", visit.out, visit.err);
    if visit.steps("fail") != row.fails {
        return Err(format!("failed at {:?}, not at {:?}{}", visit.steps("fail"), row.fails, told()));
    }
    if visit.steps("warn") != row.warns {
        return Err(format!("warned at {:?}, not at {:?}{}", visit.steps("warn"), row.warns, told()));
    }
    if visit.exit != Some(row.exit) {
        return Err(format!("exit {:?}, not {}", visit.exit, row.exit));
    }
    let said = visit.said(row.at);
    if let Some(missing) = row.says.iter().find(|words| !said.contains(**words)) {
        return Err(format!("{} does not say {missing:?}, but:\n{said}", row.at));
    }
    let token = world.token();
    let mut secrets: Vec<&str> = token.split('.').filter(|part| part.len() > 10).collect();
    secrets.extend(["planted", "wb_at_"]);
    match secrets.iter().find(|secret| visit.out.contains(**secret) || visit.err.contains(**secret)) {
        Some(secret) => Err(format!("it shows {secret:?}{}", told())),
        None => Ok(()),
    }
}

const DISCOVERY: &str = "/.well-known/openid-configuration";

fn remove(world: &mut World, claim: &str) -> Option<serde_json::Value> {
    world.claims.as_object_mut().expect("an object").remove(claim)
}

/// A subject that W&B knows.
fn subject(world: &mut World, subject: &str) {
    world.claims["sub"] = json!(subject);
    world.sandbox.extend(["--subject".into(), subject.into()]);
}

/// A W&B that refuses every exchange so.
fn refuse(world: &mut World, status: u16, body: serde_json::Value) {
    world.own_wandb().on("/oidc/token", answer(status, body));
}

/// `WANDB_IDENTITY_TOKEN_FILE` with a JWT and this after it; or with this alone.
fn token_file(world: &mut World, alone: usize, end: &str) {
    let jwt = unsigned(json!({ "alg": "RS256" }), &world.claims, "c2ln");
    let text = if alone > 0 { end.to_owned() } else { jwt + end };
    let file = world.write("own.jwt", &text);
    world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file);
}

/// A GitHub Actions job with this request token.
pub(crate) fn github(world: &mut World, request_token: &str) {
    let service = StandIn::start();
    let jwt = world.issuer.sign(&world.claims, "k1");
    service.on("/token", answer(200, json!({ "value": jwt })));
    world.provider = "[provider.github-actions]\n".into();
    world.env.insert("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/token?api-version=2.0", service.url));
    world.env.insert("ACTIONS_ID_TOKEN_REQUEST_TOKEN", request_token.to_owned());
}

/// The URL of a port that was free a moment ago.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("bound"))
}

/// Something at the daemon's socket that says the same to everybody, or nothing.
fn listen(world: &World, says: Option<&'static str>) {
    world.folder("run/wandb-cred", 0o700);
    let listener = UnixListener::bind(world.path("run/wandb-cred/wandb-cred.sock")).expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let read = stream.read(&mut [0; 4096]);
                match says {
                    Some(text) => drop(stream.write_all(text.as_bytes())),
                    // Until the other side has had enough.
                    None => drop(read.and_then(|_| stream.read(&mut [0; 1]))),
                }
            });
        }
    });
}
