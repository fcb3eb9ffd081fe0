//! Identity tokens that no exchange can succeed with: each is told from the others.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::chmod;
use crate::setup::{Home, Sandbox};

#[test]
fn an_empty_file_is_called_empty() {
    bad_file(String::new(), 75, "it is empty");
}

#[test]
fn text_is_not_a_jwt() {
    bad_file("hello".to_owned(), 78, "not a JWT");
}

#[test]
fn three_parts_are_not_yet_a_jwt() {
    bad_file("a.b.c".to_owned(), 78, "JWT");
}

#[test]
fn a_file_over_the_limit_is_refused() {
    bad_file("x".repeat(200_000), 78, "larger than");
}

#[test]
fn control_characters_are_not_a_jwt() {
    bad_file("\0\u{1}.\u{2}.\u{3}".to_owned(), 78, "JWT");
}

#[test]
fn a_jwt_without_exp_is_refused() {
    bad_file(unsigned(r#"{"aud":"sandbox"}"#), 78, "exp");
}

#[test]
fn an_expired_jwt_is_called_expired() {
    bad_file(unsigned(r#"{"aud":"sandbox","exp":1000000000}"#), 75, "expired");
}

#[test]
fn another_audience_is_named_beside_the_wanted_one() {
    let sandbox = Sandbox::start(&[]);
    let jwt = sandbox.control().mint("audience=other");
    refused(&sandbox, &jwt, 78, "audience `other`, but [profile.work] expects `sandbox`");
}

#[test]
fn a_subject_that_wandb_does_not_know_is_reported() {
    let sandbox = Sandbox::start(&[]);
    let jwt = sandbox.control().mint("subject=nobody");
    refused(&sandbox, &jwt, 78, "No user or service account matches");
}

#[test]
fn an_issuer_that_wandb_does_not_know_is_reported() {
    let sandbox = Sandbox::start(&[]);
    let jwt = unsigned(r#"{"iss":"https://x.example","sub":"s","aud":"sandbox","exp":4102444800}"#);
    refused(&sandbox, &jwt, 78, "issuer");
}

/// The fault is the file's own, so it is named.
fn bad_file(content: String, exit: i32, words: &str) {
    let (told, path) = refused(&Sandbox::start(&[]), &content, exit, words);
    assert!(told.contains(&path), "{told}");
}

/// What the command says of a file with this content, and the file.
fn refused(sandbox: &Sandbox, content: &str, exit: i32, words: &str) -> (String, String) {
    let home = Home::new("");
    // Old enough to be no file that is being written.
    let jwt = home.write("jwt", content);
    let old = fs::File::options().write(true).open(&jwt).expect("opened");
    old.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000)).expect("aged");
    home.write_config(&sandbox.file_profile("work", &jwt));
    let _daemon = home.daemon();
    let told = home.run(&["token", "--wait", "2"]);
    assert_eq!((told.code, told.out.as_str()), (Some(exit), ""), "{}", told.err);
    for word in [words, "profile `work`", "next: wandb-cred"] {
        assert!(told.err.contains(word), "`{word}` expected in {}", told.err);
    }
    (told.err, jwt.display().to_string())
}

/// A JWT of these claims that nobody signed.
fn unsigned(claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"ES256","typ":"JWT"}"#), part(claims), part("no signature at all"))
}

#[test]
fn an_identity_token_file_that_everybody_can_write_is_not_believed() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let jwt = home.write("jwt", &sandbox.control().mint(""));
    chmod(&jwt, 0o666);
    home.write_config(&sandbox.file_profile("work", &jwt));
    let _daemon = home.daemon();
    let told = home.run(&["token"]);
    assert_eq!(told.code, Some(78), "{}", told.err);
    assert!(told.err.contains(&format!("chmod o-w {}", jwt.display())), "{}", told.err);
    chmod(&jwt, 0o600);
    assert_eq!(sandbox.exchanges(), 0);
}
