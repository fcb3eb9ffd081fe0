//! No false alarm: a healthy set-up of each kind has no warning and no failure.

use serde_json::json;

use super::faults::github;
use super::stand_in::{CERTIFICATE, StandIn, answer, now, unsigned};
use super::world::World;

/// A set-up that works, and the provider that must be named.
struct Kind {
    name: &'static str,
    set_up: fn(&mut World),
}

const KINDS: &[Kind] = &[
    Kind { name: "file", set_up: |_| {} },
    Kind {
        name: "command",
        set_up: |world| {
            world.provider =
                format!("[provider.command]\nargv = [\"cat\", \"{}/jwt\"]\n", world.home.path().display());
        },
    },
    Kind {
        name: "env",
        set_up: |world| {
            world.provider = "[provider.env]\nvariable = \"MY_JWT\"\n".into();
            let jwt = world.token();
            world.env.insert("MY_JWT", jwt);
        },
    },
    Kind {
        name: "github-actions",
        set_up: |world| {
            world.claims["sub"] = json!("repo:o/r:environment:train");
            world.claims["exp"] = json!(now() + 300);
            world.sandbox.extend(["--subject", "repo:o/r:environment:train"].map(str::to_owned));
            let request = unsigned(json!({ "alg": "RS256" }), &json!({ "exp": now() + 6 * 3600 }), "c2ln");
            github(world, &request);
        },
    },
    Kind {
        name: "gitlab",
        set_up: |world| {
            world.claims["sub"] = json!("project_path:g/p");
            world.claims["exp"] = json!(now() + 7200);
            world.sandbox.extend(["--subject", "project_path:g/p"].map(str::to_owned));
            world.provider = "[provider.gitlab]\n".into();
            let jwt = world.token();
            world.env.insert("GITLAB_CI", "true".into());
            world.env.insert("WANDB_ID_TOKEN", jwt);
        },
    },
    Kind {
        name: "buildkite",
        set_up: |world| {
            let agent = StandIn::start();
            agent.on("/v3/jobs/j1/oidc/tokens", answer(200, json!({ "token": world.token() })));
            world.provider = "[provider.buildkite]\n".into();
            world.env.insert("BUILDKITE_AGENT_ENDPOINT", format!("{}/v3", agent.url));
            world.env.insert("BUILDKITE_AGENT_ACCESS_TOKEN", "planted-agent-token".into());
            world.env.insert("BUILDKITE_JOB_ID", "j1".into());
        },
    },
    Kind {
        name: "kubernetes",
        set_up: |world| {
            world.claims["sub"] = json!("system:serviceaccount:ml:train");
            world.sandbox.extend(["--subject", "system:serviceaccount:ml:train"].map(str::to_owned));
            let file = world.write("projected/token", &world.token());
            world.provider = format!("[provider.kubernetes]\npath = \"{file}\"\n");
        },
    },
    Kind {
        name: "client-credentials",
        set_up: |world| {
            let body = json!({ "access_token": world.token(), "token_type": "Bearer", "expires_in": 3600 });
            world.issuer.http.on("/token", answer(200, body));
            let secret = world.write("client-secret", "planted-client-secret");
            world.provider = format!(
                "[provider.client-credentials]\nissuer = \"{}\"\nclient-id = \"c\"\nclient-secret-file = \"{secret}\"\n",
                world.issuer.http.url
            );
        },
    },
    Kind {
        name: "gcp",
        set_up: |world| {
            let metadata = StandIn::start();
            let path = "/computeMetadata/v1/instance/service-accounts/default/identity";
            let token = answer(200, world.token())
                .header("Metadata-Flavor", "Google")
                .header("Content-Type", "text/html");
            metadata.on(path, token);
            world.provider = "[provider.gcp]\n".into();
            world.env.insert("GCE_METADATA_HOST", metadata.url.replace("http://", ""));
        },
    },
    Kind {
        name: "azure",
        set_up: |world| {
            let metadata = StandIn::start();
            let body = json!({ "access_token": world.token(), "expires_in": "3599", "token_type": "Bearer", "resource": "acme" });
            metadata.on("/metadata/identity/oauth2/token", answer(200, body));
            world.provider = "[provider.azure]\n".into();
            world.env.insert("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("{}/", metadata.url));
        },
    },
    Kind {
        name: "aws",
        set_up: |world| {
            let sts = StandIn::start();
            let body = format!(
                "<GetWebIdentityTokenResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetWebIdentityTokenResult>\
                 <WebIdentityToken>{}</WebIdentityToken><Expiration>2100-01-01T00:00:00Z</Expiration>\
                 </GetWebIdentityTokenResult></GetWebIdentityTokenResponse>",
                world.token()
            );
            sts.on("/", answer(200, body).header("Content-Type", "text/xml"));
            world.provider = "[provider.aws]\n".into();
            world.env.insert("AWS_ENDPOINT_URL_STS", sts.url.clone());
            world.env.insert("AWS_REGION", "eu-central-1".into());
            world.env.insert("AWS_ACCESS_KEY_ID", "AKIDplanted012345678".into());
            world.env.insert("AWS_SECRET_ACCESS_KEY", "planted-secret-key".into());
        },
    },
    Kind {
        name: "wandb-sso",
        set_up: |world| {
            let wandb = world.own_wandb();
            let account = json!({ "id_token": world.token(), "host": wandb.url, "org": "acme" });
            let file =
                json!({ "version": 1, "active": wandb.url, "accounts": { wandb.url.as_str(): account } });
            let file = world.write("identity.json", &file.to_string());
            world.provider = format!("[provider.wandb-sso]\npath = \"{file}\"\n");
        },
    },
    Kind {
        name: "a private authority that SSL_CERT_FILE names",
        set_up: |world| {
            world.wandb_at(StandIn::start_tls());
            let ca = world.write("ca.pem", CERTIFICATE);
            world.env.insert("SSL_CERT_FILE", ca);
        },
    },
    Kind {
        name: "auto (a token file)",
        set_up: |world| {
            world.provider = "[provider.auto]\n".into();
            let file = world.write("own.jwt", &world.token());
            world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file);
        },
    },
    Kind { name: "no audience in the profile", set_up: |world| world.audience = None },
    Kind {
        name: "an address for a subject",
        set_up: |world| {
            world.claims["sub"] = json!("ada@example.com");
            world.sandbox.extend(["--subject", "ada@example.com"].map(str::to_owned));
        },
    },
    Kind {
        name: "a systemd that runs it",
        set_up: |world| {
            world.write("run/systemd/private", "");
            world.write(".config/systemd/user/wandb-cred.service", "[Service]\nExecStart=/bin/sh run\n");
            world.program("systemctl", "case $2 in is-enabled) echo enabled;; *) echo active;; esac");
        },
    },
];

#[test]
fn a_healthy_set_up_of_each_kind_raises_no_alarm() {
    let mut failures = Vec::new();
    for kind in KINDS {
        let mut world = World::new();
        (kind.set_up)(&mut world);
        world.set_up();
        let visit = world.doctor(&["--json"]);
        let alarms = [visit.steps("fail"), visit.steps("warn"), visit.steps("skipped")].concat();
        if !alarms.is_empty() || visit.exit != Some(0) || visit.out.contains("planted") {
            failures.push(format!("{}: {alarms:?} {:?}\n{}{}", kind.name, visit.exit, visit.out, visit.err));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn people_get_a_line_for_each_step_and_a_verdict() {
    let mut world = World::new();
    world.set_up();
    let visit = world.doctor(&[]);
    assert_eq!(visit.exit, Some(0), "{visit:?}");
    assert!(visit.out.contains("ok   subject          W&B sees \"svc-train\" (from sub)"), "{}", visit.out);
    assert!(visit.out.ends_with("verdict: healthy; profile work can get tokens\n"), "{}", visit.out);
    let token = world.token();
    assert!(!visit.out.contains(token.rsplit('.').next().expect("a signature")), "{}", visit.out);
    assert!(visit.out.lines().all(|line| line.chars().count() <= 130), "{}", visit.out);
}
