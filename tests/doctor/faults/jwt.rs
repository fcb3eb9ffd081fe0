//! The JWT itself, its lifetime, and the clocks it is judged by.

use serde_json::json;

use super::{fails, remove, warns};
use crate::stand_in::{now, unsigned};

#[test]
fn reports_an_opaque_token() {
    fails(
        |world| world.jwt = Some("planted-opaque-token".into()),
        &["jwt"],
        78,
        &["1 dot-separated", "JWT alone"],
    );
}

#[test]
fn reports_an_encrypted_jwt() {
    fails(|world| world.jwt = Some("a.b.c.d.e".into()), &["jwt"], 78, &["5 dot-separated", "JWE"]);
}

#[test]
fn reports_an_empty_file() {
    fails(|world| world.jwt = Some("\n".into()), &["jwt"], 75, &["is empty", "what writes it"]);
}

#[test]
fn reports_an_unsigned_jwt() {
    fails(
        |world| world.jwt = Some(unsigned(json!({ "alg": "none" }), &world.claims, "")),
        &["jwt"],
        78,
        &["unsigned", "RS256 or ES256"],
    );
}

#[test]
fn reports_a_jwt_without_exp() {
    fails(|world| drop(remove(world, "exp")), &["jwt"], 78, &["`exp`"]);
}

#[test]
fn reports_an_expired_jwt() {
    fails(|world| world.claims["exp"] = json!(now() - 5), &["lifetime"], 75, &["expired at", "clock"]);
}

#[test]
fn reports_a_jwt_from_the_future() {
    fails(
        |world| {
            world.claims["nbf"] = json!(now() + 900);
        },
        &["lifetime"],
        75,
        &["not valid before", "clock"],
    );
}

#[test]
fn warns_of_a_jwt_that_lives_for_ten_days() {
    warns(|world| world.claims["exp"] = json!(now() + 864_000), &["lifetime"], &["10 d", "an hour or less"]);
}

#[test]
fn reports_that_our_clock_is_behind() {
    fails(
        |world| {
            world.own_wandb().skew(1230);
            world.issuer.http.skew(1230);
        },
        &["clock"],
        78,
        &["20 min", "behind", "timedatectl set-ntp true"],
    );
}

#[test]
fn warns_that_the_issuers_clock_is_ahead() {
    warns(
        |world| {
            world.own_wandb().skew(0);
            world.issuer.http.skew(240);
        },
        &["clock"],
        &["differ by", "issuer's machine"],
    );
}
