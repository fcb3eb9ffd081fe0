//! What the token endpoint says.

use serde_json::json;

use super::{fails, warns};
use crate::stand_in::answer;
use crate::world::World;

#[test]
fn reports_a_subject_that_wandb_does_not_know() {
    fails(
        |world| world.claims["sub"] = json!("svc-other"),
        &["exchange"],
        78,
        &["\"svc-other\"", "Settings > Service accounts"],
    );
}

#[test]
fn reports_an_issuer_that_wandb_does_not_know() {
    fails(
        |world| {
            let other = World::new();
            world.claims["iss"] = json!(other.issuer.http.url);
            world.jwt = Some(other.issuer.sign(&world.claims, "k1"));
            world.kept.push(Box::new(other));
        },
        &["exchange"],
        78,
        &["not configured", "Add JWT Issuer"],
    );
}

#[test]
fn reports_an_audience_that_wandb_does_not_know() {
    fails(
        |world| {
            world.audience = Some("wrong-organization");
            world.claims["aud"] = json!("wrong-organization");
        },
        &["exchange"],
        78,
        &["wrong-organization", "FEDERATED_AUTH_AUDIENCES"],
    );
}

#[test]
fn reports_a_jwt_that_wandb_cannot_read() {
    fails(
        |world| world.faults = Some(json!({ "exchange": "plain-text" })),
        &["exchange"],
        78,
        &["invalid JWT format", "encrypted"],
    );
}

#[test]
fn reports_a_bare_invalid_grant() {
    fails(
        |world| refuse(world, 400, json!({ "error": "invalid_grant" })),
        &["exchange"],
        78,
        &["one of these differs", "\"acme\"", "\"svc-train\""],
    );
}

#[test]
fn reports_a_missing_licence() {
    fails(
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
    );
}

#[test]
fn reports_an_old_server() {
    fails(|world| refuse(world, 404, json!({})), &["exchange"], 78, &["no token endpoint", "base-url"]);
}

#[test]
fn reports_that_wandb_is_busy() {
    fails(
        |world| world.faults = Some(json!({ "exchange": { "status": 503 } })),
        &["exchange"],
        75,
        &["503", "try again"],
    );
}

#[test]
fn reports_a_garbled_answer() {
    fails(
        |world| world.faults = Some(json!({ "exchange": "garbage" })),
        &["exchange"],
        75,
        &["not a token response", "try again"],
    );
}

#[test]
fn reports_a_source_that_gives_a_jwt_twice() {
    fails(
        |world| {
            world.provider =
                format!("[provider.command]\nargv = [\"cat\", \"{}/jwt\"]\n", world.home.path().display());
            world.set_up();
            world.doctor(&[]);
        },
        &["exchange"],
        78,
        &["already used", "turn its own cache off"],
    );
}

#[test]
fn warns_of_a_file_whose_jwt_was_used_before() {
    warns(
        |world| {
            world.set_up();
            world.doctor(&[]);
        },
        &["exchange"],
        &["already used", "nothing is wrong with the path"],
    );
}

/// A W&B that refuses every exchange so.
fn refuse(world: &mut World, status: u16, body: serde_json::Value) {
    world.own_wandb().on("/oidc/token", answer(status, body));
}
