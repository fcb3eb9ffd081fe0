//! The access token, and how long it lasts.

use serde_json::json;

use super::{fails, github, warns};
use crate::stand_in::{answer, now, unsigned};

#[test]
fn reports_an_access_token_that_is_refused() {
    fails(
        |world| world.faults = Some(json!({ "api": { "status": 401, "body": "{}" } })),
        &["api-call"],
        78,
        &["status 401", "Authorization header"],
    );
}

#[test]
fn reports_a_token_that_stands_for_nobody() {
    fails(
        |world| world.own_wandb().on("/graphql", answer(200, "{\"data\":{\"viewer\":null}}")),
        &["api-call"],
        78,
        &["stands for nobody"],
    );
}

#[test]
fn warns_of_access_tokens_of_3_minutes() {
    warns(
        |world| world.sandbox.extend(["--token-life".into(), "180".into()]),
        &["token-life"],
        &["exchange of its own", "15 minutes"],
    );
}

#[test]
fn warns_of_a_job_that_ends_soon() {
    warns(
        |world| {
            let request = unsigned(json!({ "alg": "RS256" }), &json!({ "exp": now() + 1230 }), "c2ln");
            github(world, &request);
        },
        &["outlook"],
        &["20 min", "--need 72h"],
    );
}
