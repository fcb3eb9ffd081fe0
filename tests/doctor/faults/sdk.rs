//! The environment of the SDK.

use serde_json::json;

use super::{fails, warns};
use crate::stand_in::unsigned;
use crate::world::World;

#[test]
fn reports_an_api_key_beside_a_token_file() {
    fails(
        |world| {
            let file = world.write("own.jwt", &unsigned(json!({ "alg": "RS256" }), &world.claims, "c2ln"));
            world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file);
            world.env.insert("WANDB_API_KEY", "planted-api-key".into());
        },
        &["sdk-environment"],
        78,
        &["AuthenticationError", "unset WANDB_API_KEY"],
    );
}

#[test]
fn warns_of_an_api_key() {
    warns(
        |world| drop(world.env.insert("WANDB_API_KEY", "planted-api-key".into())),
        &["sdk-environment"],
        &["use that key", "unset WANDB_API_KEY"],
    );
}

#[test]
fn reports_a_token_file_with_a_tilde() {
    fails(
        |world| drop(world.env.insert("WANDB_IDENTITY_TOKEN_FILE", "~/jwt".into())),
        &["sdk-environment"],
        78,
        &["~/jwt", "not expanded"],
    );
}

#[test]
fn reports_a_token_file_of_a_daemon_that_is_gone() {
    fails(
        |world| {
            let file = world.path("run/wandb-cred/profiles/work/identity-token");
            world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file.to_str().expect("text").into());
        },
        &["sdk-environment"],
        78,
        &["is gone", "wandb-cred exec"],
    );
}

#[test]
fn reports_a_token_file_without_a_token() {
    fails(|world| token_file(world, "{}".len(), "planted text"), &["sdk-environment"], 78, &["holds no JWT"]);
}

#[test]
fn warns_of_a_line_end_after_the_jwt() {
    warns(|world| token_file(world, 0, "\n"), &["sdk-environment"], &["white space", "printf"]);
}

#[test]
fn reports_a_tilde_in_the_credentials_file() {
    fails(
        |world| drop(world.env.insert("WANDB_CREDENTIALS_FILE", "~/c.json".into())),
        &["sdk-environment"],
        78,
        &["does not expand ~", "$HOME"],
    );
}

#[test]
fn reports_a_credentials_file_in_a_missing_folder() {
    fails(
        |world| drop(world.env.insert("WANDB_CREDENTIALS_FILE", "/nonexistent/c.json".into())),
        &["sdk-environment"],
        78,
        &["mkdir -p -m 700 /nonexistent"],
    );
}

#[test]
fn warns_of_a_broken_credentials_file() {
    warns(
        |world| {
            let file = world.write("c.json", "{\"credentials\":");
            world.env.insert("WANDB_CREDENTIALS_FILE", file);
        },
        &["sdk-environment"],
        &["not JSON", "rm "],
    );
}

#[test]
fn warns_of_another_server() {
    warns(
        |world| drop(world.env.insert("WANDB_BASE_URL", "https://api.wandb.ai".into())),
        &["sdk-environment"],
        &["https://api.wandb.ai", "export WANDB_BASE_URL="],
    );
}

#[test]
fn warns_of_a_slash_after_the_server() {
    warns(
        |world| {
            let wandb = world.own_wandb();
            world.env.insert("WANDB_BASE_URL", format!("{}/", wandb.url));
        },
        &["sdk-environment"],
        &["ends with a slash"],
    );
}

#[test]
fn reports_a_server_that_the_sdk_refuses() {
    fails(
        |world| drop(world.env.insert("WANDB_BASE_URL", "http+unix://x".into())),
        &["sdk-environment"],
        78,
        &["WANDB_BASE_URL", "export"],
    );
}

/// `WANDB_IDENTITY_TOKEN_FILE` with a JWT and this after it; or with this alone.
fn token_file(world: &mut World, alone: usize, end: &str) {
    let jwt = unsigned(json!({ "alg": "RS256" }), &world.claims, "c2ln");
    let text = if alone > 0 { end.to_owned() } else { jwt + end };
    let file = world.write("own.jwt", &text);
    world.env.insert("WANDB_IDENTITY_TOKEN_FILE", file);
}
