//! `login` that does not come to its end. What comes of one that does is in tests/peers/login.

use super::Person;

#[test]
fn nothing_said_and_nobody_to_ask() {
    let mut person = Person::new();
    let said = person.fails("wandb-cred login", 78);
    let next = said.first();
    assert_ne!(person.types(&next.replace("URL", "http://127.0.0.1:1").replace("ID", "x")).code, 64);
}

#[test]
fn an_issuer_that_is_not_there() {
    let mut person = Person::new();
    let line = "wandb-cred login --issuer http://127.0.0.1:1 --client-id cli --token-store file";
    let said = person.fails(line, 77);
    assert!(said.err.contains("nothing was written"), "{said:?}");
    // The same again: nothing of the first attempt is in its way.
    let again = person.fails(&said.first(), 77);
    assert!(again.err.contains("nothing was written") && !person.config().exists(), "{again:?}");
}

#[test]
fn no_keyring() {
    let mut person = Person::new();
    let issuer = person.sandbox.url.clone();
    let said = person.fails(&format!("wandb-cred login --issuer {issuer} --client-id cli"), 77);
    assert!(said.err.contains("keyring"), "{said:?}");
    // It goes on from there: the stand-in lets nobody sign in, and says so.
    let next = person.fails(&said.first(), 77);
    assert!(!next.err.contains("keyring") && next.err.contains(&issuer), "{next:?}");
}

#[test]
fn options_that_nothing_reads_any_more() {
    let mut person = Person::configured();
    let said = person.types("wandb-cred login --issuer http://127.0.0.1:1 --client-id cli");
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("  next: "), "{said:?}");
}

#[test]
fn a_profile_for_which_nobody_signs_in() {
    let mut person = Person::configured();
    person.puts_token();
    let said = person.fails("wandb-cred login", 78);
    person.works(&said.first());
}
