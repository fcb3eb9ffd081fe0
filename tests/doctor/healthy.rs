//! No false alarm: a healthy set-up of each kind has no warning and no failure.

use serde_json::json;

use super::faults::github;
use super::stand_in::{CERTIFICATE, StandIn, answer, now, unsigned};
use super::world::World;

#[test]
fn a_token_file_raises_no_alarm() {
    healthy(|_| {});
}

#[test]
fn a_jwt_that_is_valid_in_a_moment_is_waited_for() {
    healthy(|world| world.claims["nbf"] = json!(now() + 3));
}

#[test]
fn a_command_raises_no_alarm() {
    healthy(|world| {
        world.provider =
            format!("[provider.command]\nargv = [\"cat\", \"{}/jwt\"]\n", world.home.path().display());
    });
}

#[test]
fn an_environment_variable_raises_no_alarm() {
    healthy(|world| {
        world.provider = "[provider.env]\nvariable = \"MY_JWT\"\n".into();
        let jwt = world.token();
        world.env.insert("MY_JWT", jwt);
    });
}

#[test]
fn github_actions_raises_no_alarm() {
    healthy(|world| {
        world.claims["sub"] = json!("repo:o/r:environment:train");
        world.claims["exp"] = json!(now() + 300);
        world.sandbox.extend(["--subject", "repo:o/r:environment:train"].map(str::to_owned));
        let request = unsigned(json!({ "alg": "RS256" }), &json!({ "exp": now() + 6 * 3600 }), "c2ln");
        github(world, &request);
    });
}

#[test]
fn gitlab_raises_no_alarm() {
    healthy(|world| {
        world.claims["sub"] = json!("project_path:g/p");
        world.claims["exp"] = json!(now() + 7200);
        world.sandbox.extend(["--subject", "project_path:g/p"].map(str::to_owned));
        world.provider = "[provider.gitlab]\n".into();
        let jwt = world.token();
        world.env.insert("GITLAB_CI", "true".into());
        world.env.insert("WANDB_ID_TOKEN", jwt);
    });
}

#[test]
fn buildkite_raises_no_alarm() {
    healthy(|world| {
        let agent = StandIn::start();
        agent.on("/v3/jobs/j1/oidc/tokens", answer(200, json!({ "token": world.token() })));
        world.provider = "[provider.buildkite]\n".into();
        world.env.insert("BUILDKITE_AGENT_ENDPOINT", format!("{}/v3", agent.url));
        world.env.insert("BUILDKITE_AGENT_ACCESS_TOKEN", "planted-agent-token".into());
        world.env.insert("BUILDKITE_JOB_ID", "j1".into());
    });
}

#[test]
fn kubernetes_raises_no_alarm() {
    healthy(|world| {
        world.claims["sub"] = json!("system:serviceaccount:ml:train");
        world.sandbox.extend(["--subject", "system:serviceaccount:ml:train"].map(str::to_owned));
        let file = world.write("projected/token", &world.token());
        world.provider = format!("[provider.kubernetes]\npath = \"{file}\"\n");
    });
}

#[test]
fn client_credentials_raises_no_alarm() {
    healthy(|world| {
        let body = json!({ "access_token": world.token(), "token_type": "Bearer", "expires_in": 3600 });
        world.issuer.http.on("/token", answer(200, body));
        let secret = world.write("client-secret", "planted-client-secret");
        world.provider = format!(
            "[provider.client-credentials]\nissuer = \"{}\"\nclient-id = \"c\"\nclient-secret-file = \"{secret}\"\n",
            world.issuer.http.url
        );
    });
}

#[test]
fn gcp_raises_no_alarm() {
    healthy(|world| {
        let metadata = StandIn::start();
        let path = "/computeMetadata/v1/instance/service-accounts/default/identity";
        let token = answer(200, world.token())
            .header("Metadata-Flavor", "Google")
            .header("Content-Type", "text/html");
        metadata.on(path, token);
        world.provider = "[provider.gcp]\n".into();
        world.env.insert("GCE_METADATA_HOST", metadata.url.replace("http://", ""));
    });
}

#[test]
fn azure_raises_no_alarm() {
    healthy(|world| {
        let metadata = StandIn::start();
        let body = json!({ "access_token": world.token(), "expires_in": "3599", "token_type": "Bearer", "resource": "acme" });
        metadata.on("/metadata/identity/oauth2/token", answer(200, body));
        world.provider = "[provider.azure]\n".into();
        world.env.insert("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("{}/", metadata.url));
    });
}

#[test]
fn aws_raises_no_alarm() {
    healthy(|world| {
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
    });
}

#[test]
fn wandb_sso_raises_no_alarm() {
    healthy(|world| {
        let wandb = world.own_wandb();
        let account = json!({ "id_token": world.token(), "host": wandb.url, "org": "acme" });
        let file = json!({ "version": 1, "active": wandb.url, "accounts": { wandb.url.as_str(): account } });
        let file = world.write("identity.json", &file.to_string());
        world.provider = format!("[provider.wandb-sso]\npath = \"{file}\"\n");
    });
}

#[test]
fn a_private_authority_that_ssl_cert_file_names_raises_no_alarm() {
    healthy(|world| {
        world.wandb_at(StandIn::start_tls());
        let ca = world.write("ca.pem", CERTIFICATE);
        world.env.insert("SSL_CERT_FILE", ca);
    });
}

#[test]
fn a_private_authority_that_the_profile_names_raises_no_alarm() {
    healthy(|world| {
        world.wandb_at(StandIn::start_tls());
        world.keys = format!("ca-file = \"{}\"\n", world.write("ca.pem", CERTIFICATE));
    });
}

#[test]
fn a_token_file_that_auto_finds_raises_no_alarm() {
    healthy(|world| {
        world.provider = "[provider.auto]\n".into();
        let file = world.write("own.jwt", &world.token());
        world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file);
    });
}

#[test]
fn a_profile_without_an_audience_raises_no_alarm() {
    healthy(|world| world.audience = None);
}

#[test]
fn an_address_as_the_subject_raises_no_alarm() {
    healthy(|world| {
        world.claims["sub"] = json!("ada@example.com");
        world.sandbox.extend(["--subject", "ada@example.com"].map(str::to_owned));
    });
}

#[test]
fn a_systemd_that_runs_it_raises_no_alarm() {
    healthy(|world| {
        world.write("run/systemd/private", "");
        world.write(".config/systemd/user/wandb-cred.service", "[Service]\nExecStart=/bin/sh run\n");
        world.program("systemctl", "case $2 in is-enabled) echo enabled;; *) echo active;; esac");
    });
}

/// A set-up that works: nothing fails, warns or is skipped, and no secret is shown.
fn healthy(set_up: fn(&mut World)) {
    let mut world = World::new();
    set_up(&mut world);
    world.set_up();
    let visit = world.doctor(&["--json"]);
    for verdict in ["fail", "warn", "skipped"] {
        assert_eq!(visit.steps(verdict), [""; 0], "{verdict}: {visit:?}");
    }
    assert_eq!(visit.exit, Some(0), "{visit:?}");
    assert!(!visit.out.contains("planted"), "{visit:?}");
}

#[test]
fn people_get_a_line_for_each_step_and_a_verdict() {
    let mut world = World::new();
    world.set_up();
    let visit = world.doctor(&["--verbose"]);
    assert_eq!(visit.exit, Some(0), "{visit:?}");
    assert!(visit.out.contains("ok   subject          W&B sees \"svc-train\" (from sub)"), "{}", visit.out);
    assert!(visit.out.ends_with("verdict: healthy; profile work can get tokens\n"), "{}", visit.out);
    let token = world.token();
    assert!(!visit.out.contains(token.rsplit('.').next().expect("a signature")), "{}", visit.out);
    assert!(visit.out.lines().all(|line| line.chars().count() <= 130), "{}", visit.out);
}

#[test]
fn people_hear_only_of_what_is_wrong() {
    let mut world = World::new();
    world.set_up();
    let short = world.doctor(&[]);
    assert_eq!((short.exit, short.out.lines().count()), (Some(0), 1), "{short:?}");
    assert!(short.out.starts_with("verdict: healthy; profile work can get tokens; "), "{}", short.out);
}

/// A person sees each step when it has ended, and what is looked at meanwhile.
#[test]
fn on_a_terminal_each_step_is_shown_as_it_ends() {
    let mut world = World::new();
    world.faults = Some(json!({ "api": { "delay_ms": 900 } }));
    world.set_up();
    let doctor = format!("{} doctor --verbose", env!("CARGO_BIN_EXE_wandb-cred"));
    let output = world.command("script", &["-qec", &doctor, "/dev/null"]).output().expect("script");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words:?} in {text:?}"));
    let order = [
        "gives identity tokens",
        "checking the issuer and the W&B server",
        "is a W&B API",
        "checking a call to W&B",
        "signed in as",
        "verdict: healthy",
    ];
    let places: Vec<_> = order.iter().map(|words| at(words)).collect();
    assert!(places.is_sorted(), "{places:?}: {text:?}");
    // What was waited for is taken away before something is printed.
    assert!(!text.contains("ends)ok"), "{text:?}");
}

#[test]
fn all_profiles_are_looked_at_and_one_if_it_is_named() {
    let mut world = World::new();
    let lab = "[profile.lab.provider.file]\npath = \"/nonexistent/jwt\"\n";
    world.provider += lab;
    world.set_up();
    let config = std::fs::read_to_string(world.path("config.toml")).expect("read");
    world.write("config.toml", &format!("default-profile = \"work\"\n{config}"));
    let all = world.doctor(&["--json"]);
    assert_eq!((all.exit, all.json()["profiles"].clone()), (Some(75), json!(["lab", "work"])), "{}", all.out);
    let of = |profile: &str, verdict: &str| {
        let findings = all.json()["findings"].as_array().expect("findings").clone();
        findings.iter().filter(|one| one["profile"] == profile && one["verdict"] == verdict).count()
    };
    assert!(of("lab", "fail") > 0 && of("work", "fail") == 0, "{}", all.out);
    let one = world.doctor(&["--json", "--profile", "work"]);
    assert_eq!((one.exit, one.json()["profiles"].clone()), (Some(0), json!(["work"])), "{}", one.out);
    let text = world.doctor(&[]);
    assert!(
        text.out.contains("profile lab: file at") && text.out.contains("fix provider (lab)"),
        "{}",
        text.out
    );
}
