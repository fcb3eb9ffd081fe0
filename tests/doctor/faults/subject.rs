//! The claims that W&B compares: subject and audience.

use serde_json::json;

use super::{fails, remove, warns};
use crate::world::World;

#[test]
fn reports_a_jwt_without_subject() {
    fails(
        |world| drop(remove(world, "sub")),
        &["subject", "exchange"],
        78,
        &["no `sub`", "put a subject in"],
    );
}

#[test]
fn warns_of_white_space_in_the_subject() {
    warns(|world| subject(world, "svc-train "), &["subject"], &["\"svc-train \"", "white space", "exactly"]);
}

#[test]
fn warns_of_capital_letters_in_an_address() {
    warns(|world| subject(world, "Ada@example.com"), &["subject"], &["capital letters", "exactly"]);
}

#[test]
fn warns_of_a_github_subject_by_branch() {
    warns(
        |world| subject(world, "repo:o/r:ref:refs/heads/main"),
        &["stable-subject"],
        &["branch", "repo:o/r:environment:NAME", "gh api"],
    );
}

#[test]
fn warns_of_a_buildkite_subject_by_commit() {
    warns(
        |world| subject(world, "organization:o:pipeline:p:ref:refs/heads/main:commit:abc:step:s"),
        &["stable-subject"],
        &["every commit", "--subject-claim pipeline_id"],
    );
}

#[test]
fn warns_of_a_gitlab_subject_by_branch() {
    warns(
        |world| subject(world, "project_path:g/p:ref_type:branch:ref:main"),
        &["stable-subject"],
        &["ci_id_token_sub_claim_components"],
    );
}

#[test]
fn warns_of_a_circleci_subject_by_person() {
    warns(|world| subject(world, "org/1/project/2/user/3"), &["stable-subject"], &["triggers the job"]);
}

#[test]
fn reports_another_audience() {
    fails(
        |world| world.claims["aud"] = json!(["sts.amazonaws.com"]),
        &["audience"],
        78,
        &["sts.amazonaws.com", "\"acme\"", "[profile.work]"],
    );
}

#[test]
fn reports_an_audience_in_other_letter_case() {
    fails(|world| world.claims["aud"] = json!("Acme"), &["audience"], 78, &["case and white space count"]);
}

#[test]
fn reports_a_jwt_without_audience() {
    fails(|world| drop(remove(world, "aud")), &["audience"], 78, &["no `aud`", "organization"]);
}

/// A subject that W&B knows.
fn subject(world: &mut World, subject: &str) {
    world.claims["sub"] = json!(subject);
    world.sandbox.extend(["--subject".into(), subject.into()]);
}
