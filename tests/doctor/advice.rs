//! The doctor's advice, typed: the command that a remedy names is run as it stands, and the finding is gone.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::stand_in::{StandIn, unsigned};
use crate::world::{Visit, World, mode};

/// The remedy at this step has a command that begins like this; once it is run, nothing is wrong at the step.
fn heals(plant: fn(&mut World), step: &str, begins: &str) {
    let mut world = World::new();
    // Where the daemon goes without its usual folder.
    world.env.insert("TMPDIR", world.home.path().to_str().expect("text").to_owned());
    plant(&mut world);
    if !world.path("config.toml").exists() {
        world.set_up();
    }
    let before = world.doctor(&["--json"]);
    assert!(is_wrong(&before, step), "{step}: {}", before.out);
    let command = command_in(&before, step, begins);
    let after = type_in(&world, &format!("{command} && exec wandb-cred doctor --json"));
    assert!(!is_wrong(&after, step), "after {command}: {}\n{}", after.out, after.err);
}

fn is_wrong(visit: &Visit, step: &str) -> bool {
    ["fail", "warn"].iter().any(|verdict| visit.steps(verdict).iter().any(|wrong| wrong == step))
}

/// From its first word to where prose goes on.
fn command_in(visit: &Visit, step: &str, begins: &str) -> String {
    let said = visit.said(step);
    let at = said.find(begins).unwrap_or_else(|| panic!("{step} does not say {begins:?}, but: {said}"));
    let rest = &said[at..];
    let end = [";", ",", " (", "\n"].iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// In a shell with the world's environment.
fn type_in(world: &World, line: &str) -> Visit {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_wandb-cred")).parent().expect("a folder");
    let line = format!("PATH={}:$PATH; {line}", bin.display());
    let output = world.command("sh", &["-c", &line]).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Visit { exit: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn an_open_folder_is_closed() {
    heals(|world| world.folder("run/wandb-cred", 0o755), "folders", "chmod 700");
}

#[test]
fn a_symlink_is_removed() {
    heals(
        |world| {
            world.folder("run/wandb-cred/profiles", 0o700);
            std::os::unix::fs::symlink("/tmp", world.path("run/wandb-cred/profiles/work")).expect("linked");
        },
        "folders",
        "rm ",
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_left_for_another() {
    heals(
        |world| drop(world.env.insert("XDG_RUNTIME_DIR", "/proc/nobody".into())),
        "folders",
        "unset XDG_RUNTIME_DIR",
    );
}

#[test]
fn a_path_too_long_for_a_socket_is_left_for_another() {
    heals(
        |world| {
            let long = format!("{}/{}", world.home.path().display(), "x".repeat(100));
            world.env.insert("WANDB_CRED_SOCKET", format!("{long}/s"));
        },
        "configuration",
        "unset WANDB_CRED_SOCKET",
    );
}

#[test]
fn a_file_that_others_write_is_closed() {
    heals(
        |world| {
            world.set_up();
            mode(&world.path("config.toml"), 0o666);
        },
        "configuration",
        "chmod go-w",
    );
}

#[test]
fn one_of_several_profiles_is_chosen() {
    heals(
        |world| {
            let wandb = world.own_wandb();
            let jwt = world.path("jwt");
            world.provider += &format!(
                "[profile.lab]\nbase-url = \"{}\"\n[profile.lab.provider.file]\npath = \"{}\"\n",
                wandb.url,
                jwt.display()
            );
        },
        "configuration",
        "export WANDB_CRED_PROFILE=",
    );
}

#[test]
fn an_unknown_profile_leads_to_the_known_one() {
    let mut world = World::new();
    world.set_up();
    let visit = world.doctor(&["--json", "--profile", "wrok"]);
    let command = command_in(&visit, "configuration", "wandb-cred doctor --profile");
    assert_eq!(type_in(&world, &command).exit, Some(0), "{command}");
}

#[test]
fn a_page_s_address_becomes_the_api_s() {
    let mut world = World::new();
    let wandb = world.own_wandb();
    world.base_url = Some(format!("{}/home", wandb.url));
    world.set_up();
    let visit = world.doctor(&["--json"]);
    let setting = command_in(&visit, "server", "base-url = ").replace(" in [profile.work]", "");
    let config = std::fs::read_to_string(world.path("config.toml")).expect("read");
    let changed: String = config
        .lines()
        .map(|line| format!("{}\n", if line.starts_with("base-url") { &setting } else { line }))
        .collect();
    world.write("config.toml", &changed);
    assert!(!is_wrong(&world.doctor(&["--json"]), "server"), "{changed}");
}

#[test]
fn a_key_in_the_way_is_unset() {
    heals(
        |world| drop(world.env.insert("WANDB_API_KEY", "planted-api-key".into())),
        "sdk-environment",
        "unset WANDB_API_KEY",
    );
}

#[test]
fn a_key_beside_a_token_file_is_unset() {
    heals(
        |world| {
            token_file(world, "");
            world.env.insert("WANDB_API_KEY", "planted-api-key".into());
        },
        "sdk-environment",
        "unset WANDB_API_KEY",
    );
}

#[test]
fn a_token_file_that_is_not_there_is_unset() {
    heals(
        |world| drop(world.env.insert("WANDB_IDENTITY_TOKEN_FILE", "~/jwt".into())),
        "sdk-environment",
        "unset WANDB_IDENTITY_TOKEN_FILE",
    );
}

#[test]
fn a_token_file_without_a_token_is_unset() {
    heals(
        |world| {
            let file = world.write("own.jwt", "planted text");
            world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file);
        },
        "sdk-environment",
        "unset WANDB_IDENTITY_TOKEN_FILE",
    );
}

/// `exec` of a daemon on demand that is gone, in a shell that lives on.
#[test]
fn what_an_earlier_job_left_is_unset() {
    heals(
        |world| {
            let folder = world.path("run/wandb-cred/user-gone");
            let at = |name: &str| folder.join(name).to_str().expect("text").to_owned();
            world.env.insert("WANDB_IDENTITY_TOKEN_FILE", at("profiles/old/identity-token"));
            world.env.insert("WANDB_CREDENTIALS_FILE", at("profiles/old/credentials.json"));
            world.env.insert("WANDB_BASE_URL", "https://old.example".into());
            world.env.insert("WANDB_CRED_PROFILE", "old".into());
            world.env.insert("WANDB_CRED_SOCKET", at("wandb-cred.sock"));
        },
        "sdk-environment",
        "unset WANDB_IDENTITY_TOKEN_FILE WANDB_CREDENTIALS_FILE",
    );
}

#[test]
fn the_socket_of_an_earlier_job_is_unset() {
    heals(
        |world| {
            let socket =
                world.path("run/wandb-cred/slurm-7.0-0123456789abcdef-0123456789abcdef/wandb-cred.sock");
            world.env.insert("WANDB_CRED_SOCKET", socket.to_str().expect("text").into());
        },
        "daemon",
        "unset WANDB_CRED_SOCKET",
    );
}

#[test]
fn a_line_end_after_the_jwt_is_taken_away() {
    heals(|world| token_file(world, "\n"), "sdk-environment", "printf %s");
}

#[test]
fn a_tilde_is_written_out() {
    heals(
        |world| drop(world.env.insert("WANDB_CREDENTIALS_FILE", "~/c.json".into())),
        "sdk-environment",
        "export WANDB_CREDENTIALS_FILE=",
    );
}

#[test]
fn a_missing_folder_is_made() {
    heals(
        |world| {
            let file = world.path("a/b/c.json");
            world.env.insert("WANDB_CREDENTIALS_FILE", file.to_str().expect("text").into());
        },
        "sdk-environment",
        "mkdir -p -m 700",
    );
}

#[test]
fn a_broken_credentials_file_is_removed() {
    heals(
        |world| {
            let file = world.write("c.json", "{\"credentials\":");
            world.env.insert("WANDB_CREDENTIALS_FILE", file);
        },
        "sdk-environment",
        "rm ",
    );
}

#[test]
fn another_server_is_exchanged_for_the_profile_s() {
    for other in ["https://api.wandb.ai", "http+unix://x"] {
        let mut world = World::new();
        world.env.insert("WANDB_BASE_URL", other.into());
        world.set_up();
        let command = command_in(&world.doctor(&["--json"]), "sdk-environment", "export WANDB_BASE_URL=");
        let after = type_in(&world, &format!("{command} && exec wandb-cred doctor --json"));
        assert!(!is_wrong(&after, "sdk-environment"), "{command}: {}", after.out);
    }
}

#[test]
fn a_slash_after_the_server_goes() {
    heals(
        |world| {
            let wandb = world.own_wandb();
            world.env.insert("WANDB_BASE_URL", format!("{}/", wandb.url));
        },
        "sdk-environment",
        "export WANDB_BASE_URL=",
    );
}

#[test]
fn certificates_for_python_alone_become_everybody_s() {
    heals(
        |world| {
            let ca = world.write("ca.pem", crate::stand_in::CERTIFICATE);
            world.env.insert("REQUESTS_CA_BUNDLE", ca);
        },
        "sdk-environment",
        "export SSL_CERT_FILE=",
    );
}

#[test]
fn a_variable_that_names_no_certificates_is_unset() {
    let mut world = World::new();
    world.wandb_at(StandIn::start_tls());
    world.env.insert("SSL_CERT_FILE", "/nonexistent/ca.pem".into());
    world.set_up();
    let command = command_in(&world.doctor(&["--json"]), "server", "unset SSL_CERT_FILE");
    let after = type_in(&world, &format!("{command} && exec wandb-cred doctor --json"));
    assert!(after.said("server").contains("authority"), "the next thing is said: {}", after.out);
}

#[test]
fn a_proxy_hidden_by_an_empty_variable_is_used() {
    heals(
        |world| {
            world.base_url = Some("https://wandb.invalid".into());
            world.env.insert("HTTPS_PROXY", String::new());
            world.env.insert("https_proxy", "http://127.0.0.1:9".into());
        },
        "proxy",
        "export HTTPS_PROXY=",
    );
}

#[test]
fn a_password_at_rest_is_closed_to_others() {
    heals(
        |world| {
            let secret = world.write("client-secret", "planted-client-secret");
            std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).expect("chmod");
            let body = json!({ "access_token": world.token(), "token_type": "Bearer", "expires_in": 3600 });
            world.issuer.http.on("/token", crate::stand_in::answer(200, body));
            world.provider = format!(
                "[provider.client-credentials]\nissuer = \"{}\"\nclient-id = \"c\"\nclient-secret-file = \"{secret}\"\n",
                world.issuer.http.url
            );
        },
        "provider",
        "chmod 600",
    );
}

#[test]
fn a_daemon_with_an_older_configuration_reads_the_new_one() {
    let mut world = World::new();
    world.set_up();
    world.daemon();
    // It has read its configuration when it answers.
    assert!(!is_wrong(&world.doctor(&["--json"]), "daemon"));
    let config = std::fs::read_to_string(world.path("config.toml")).expect("read");
    world.write("config.toml", &config.replace("audience = \"acme\"", ""));
    let visit = world.doctor(&["--json"]);
    assert!(visit.said("daemon").contains("as the file says now"), "{}", visit.out);
    let command = command_in(&visit, "daemon", "kill -HUP");
    type_in(&world, &command);
    crate::world::wait_for(|| (!is_wrong(&world.doctor(&["--json"]), "daemon")).then_some(()));
}

/// `WANDB_IDENTITY_TOKEN_FILE` with a JWT and this after it.
fn token_file(world: &mut World, end: &str) {
    let jwt = unsigned(json!({ "alg": "RS256" }), &world.claims, "c2ln");
    let file = world.write("own.jwt", &(jwt + end));
    world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file);
}
