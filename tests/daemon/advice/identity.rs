//! No identity, a wrong one, and servers that are not there.

use super::Person;

/// The doctor finds it too, and its exit code says that something is wrong.
fn doctor_agrees(person: &mut Person, advised: &str) {
    let visit = person.types(advised);
    assert!([69, 75, 77, 78].contains(&visit.code), "{visit:?}");
    assert!(visit.out.contains("work") || visit.out.contains("default"), "{visit:?}");
}

#[test]
fn nothing_at_all() {
    for line in ["wandb-cred exec -- true", "wandb-cred token", "wandb-cred env", "wandb-cred refresh"] {
        let mut person = Person::new();
        let said = person.fails(line, 78);
        assert_eq!(said.err.lines().count(), 2, "two lines: {said:?}");
        let doctor = said.that_begins("wandb-cred doctor");
        doctor_agrees(&mut person, &doctor);
        // The other needs an identity provider: it is tried, and nothing is left of it.
        let login =
            said.that_begins("wandb-cred login").replace("URL", "http://127.0.0.1:1").replace("ID", "cli");
        let tried = person.fails(&format!("{login} --token-store file"), 77);
        assert!(tried.err.contains("nothing was written"), "{tried:?}");
        assert!(!person.config().exists());
    }
}

#[test]
fn status_says_it_in_a_line() {
    let mut person = Person::new();
    person.fails("wandb-cred exec -- true", 78);
    let status = person.types("wandb-cred status");
    assert!(status.out.lines().all(|line| line.len() < 120), "{status:?}");
    doctor_agrees(&mut person, &status.first());
}

#[test]
fn a_token_file_that_is_not_there() {
    for line in ["wandb-cred exec -- true", "wandb-cred token", "wandb-cred env", "wandb-cred refresh"] {
        let mut person = Person::configured();
        let said = person.fails(line, 75);
        doctor_agrees(&mut person, &said.first());
        person.puts_token();
        // At once: a person who has mended something does not wait for a backoff.
        let begun = crate::setup::now();
        person.works(line);
        assert!(crate::setup::now() - begun < std::time::Duration::from_secs(8), "{line}");
    }
}

/// What writes it may be started at the same time; nobody is there to be told.
#[test]
fn in_a_job_a_token_file_is_waited_for() {
    for line in ["wandb-cred exec -- true", "wandb-cred token"] {
        let mut person = Person::configured();
        person.sets("SLURM_JOB_ID", "7");
        person.writes(&person.path("later.jwt"), &person.sandbox.control().mint(""));
        person.works(&format!("(sleep 2; mv later.jwt token.jwt) & {line}"));
    }
}

#[test]
fn a_token_file_with_something_else_in_it() {
    for content in ["", "not a token", "{\"access_token\": \"x\"}"] {
        let mut person = Person::configured();
        person.writes(&person.path("token.jwt"), content);
        let said = person.types("wandb-cred exec -- true");
        assert!(said.code != 0 && !said.commands().is_empty(), "{said:?}");
        doctor_agrees(&mut person, &said.first());
        person.puts_token();
        person.works("wandb-cred refresh");
        person.works("wandb-cred exec -- true");
    }
}

#[test]
fn a_program_that_is_not_there_or_fails() {
    for (program, code) in [("/nonexistent/sso", 78), ("false", 75)] {
        let mut person = Person::new();
        let profile = person.sandbox.profile("work");
        let right = profile.lines().last().expect("argv").to_owned();
        person.writes_config(&profile.replace(&right, &format!("argv = [\"{program}\"]")));
        let said = person.fails("wandb-cred exec -- true", code);
        doctor_agrees(&mut person, &said.first());
        person.edits_config(&format!("argv = [\"{program}\"]"), &right);
        person.works("wandb-cred exec -- true");
    }
}

#[test]
fn a_server_that_is_not_there() {
    let mut person = Person::configured();
    person.puts_token();
    person.sandbox.stop();
    let said = person.fails("wandb-cred exec -- true", 75);
    doctor_agrees(&mut person, &said.first());
    person.sandbox.start_again();
    // It has a new key.
    person.puts_token();
    person.works("wandb-cred exec -- true");
}

#[test]
fn a_server_by_a_name_that_there_is_not() {
    let mut person = Person::configured();
    person.puts_token();
    let right = format!("base-url = \"{}\"", person.sandbox.url);
    person.edits_config(&right, "base-url = \"https://wandb.nosuch.invalid\"");
    let said = person.types("wandb-cred exec -- true");
    assert_eq!(said.code, 75, "{said:?}");
    doctor_agrees(&mut person, &said.first());
    person.edits_config("base-url = \"https://wandb.nosuch.invalid\"", &right);
    person.works("wandb-cred exec -- true");
}

#[test]
fn an_audience_that_w_and_b_does_not_know() {
    let mut person = Person::configured();
    person.edits_config("audience = \"sandbox\"\n", "");
    person.writes(&person.path("token.jwt"), &person.sandbox.control().mint("audience=another"));
    let said = person.fails("wandb-cred exec -- true", 78);
    doctor_agrees(&mut person, &said.first());
    person.puts_token();
    person.works("wandb-cred refresh");
    person.works("wandb-cred exec -- true");
}

#[test]
fn an_audience_that_the_profile_does_not_want() {
    let mut person = Person::configured();
    person.puts_token();
    person.edits_config("audience = \"sandbox\"", "audience = \"acme\"");
    let said = person.fails("wandb-cred exec -- true", 78);
    doctor_agrees(&mut person, &said.first());
    person.edits_config("audience = \"acme\"", "audience = \"sandbox\"");
    person.works("wandb-cred exec -- true");
}

#[test]
fn logout_where_nobody_signs_in() {
    let mut person = Person::configured();
    person.puts_token();
    let said = person.fails("wandb-cred logout", 78);
    person.works(&said.first());
}
