//! Planted faults: each is named at its own step, with its remedy, and nothing else is called wrong.

mod access;
mod configuration;
mod daemon;
mod exchange;
mod folders;
mod issuer;
mod jwt;
mod network;
mod provider;
mod sdk;
mod subject;

use serde_json::json;

use crate::stand_in::{StandIn, answer};
use crate::world::World;

/// A fault that fails these steps, in the doctor's order, and no other: the planted one first, then what it breaks.
/// The first one says all these words, the remedy's included.
fn fails(plant: fn(&mut World), steps: &[&str], exit: i32, says: &[&str]) {
    check(plant, steps, &[], exit, says);
}

/// A fault that only warns.
fn warns(plant: fn(&mut World), steps: &[&str], says: &[&str]) {
    check(plant, &[], steps, 0, says);
}

fn check(plant: fn(&mut World), fails: &[&str], warns: &[&str], exit: i32, says: &[&str]) {
    let mut world = World::new();
    plant(&mut world);
    if !world.path("config.toml").exists() {
        world.set_up();
    }
    let visit = world.doctor(&["--json"]);
    let shown = format!("{}{}", visit.out, visit.err);
    assert_eq!(visit.steps("fail"), fails, "what failed\n{shown}");
    assert_eq!(visit.steps("warn"), warns, "what warned\n{shown}");
    assert_eq!(visit.exit, Some(exit), "the exit code\n{shown}");
    let planted = fails.iter().chain(warns).next().expect("a step");
    let said = visit.said(planted);
    for words in says {
        assert!(said.contains(words), "{planted} does not say {words:?}, but:\n{said}");
    }
    if exit != 0 && TOKEN_STEPS.contains(planted) {
        world.daemon();
        let token = world.command(env!("CARGO_BIN_EXE_wandb-cred"), &["token", "--wait", "2s"]).output();
        let token = token.expect("it starts");
        // What is planted beside the way of a token (W&B's API) does not keep anybody from having one.
        let codes = if *planted == "server" { vec![exit, 0] } else { vec![exit] };
        let code = token.status.code().expect("not killed");
        assert!(
            codes.contains(&code),
            "`token` ends with {code}, the doctor with {exit}\n{token:?}\n{shown}"
        );
    }
    let token = world.token();
    let parts = token.split('.').filter(|part| part.len() > 10);
    for secret in parts.chain(["planted", "wb_at_"]) {
        assert!(!shown.contains(secret), "it shows {secret:?}\n{shown}");
    }
}

/// What fails there is what keeps `token` from having one, so both end alike.
const TOKEN_STEPS: [&str; 6] = ["provider", "jwt", "lifetime", "audience", "server", "exchange"];

fn remove(world: &mut World, claim: &str) -> Option<serde_json::Value> {
    world.claims.as_object_mut().expect("an object").remove(claim)
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
