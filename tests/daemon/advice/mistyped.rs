//! Wrong names, options and variables.

use super::Person;

#[test]
fn a_subcommand_that_there_is_not() {
    let mut person = Person::new();
    let said = person.fails("wandb-cred tokn", 64);
    assert!(person.works(&said.first()).out.contains("  token "));
}

#[test]
fn an_option_that_there_is_not() {
    for (line, help) in [
        ("wandb-cred token --frobnicate", "--min-ttl"),
        ("wandb-cred env --shell korn", "--shell"),
        ("wandb-cred token --min-ttl soon", "--min-ttl"),
        ("wandb-cred exec", "CMD"),
        ("wandb-cred status --profile", "--profile"),
        ("wandb-cred login --organization acme", "--host"),
    ] {
        let mut person = Person::new();
        let said = person.fails(line, 64);
        assert!(person.works(&said.first()).out.contains(help), "{line}");
    }
}

#[test]
fn a_profile_that_there_is_not() {
    let mut person = Person::configured();
    person.puts_token();
    let said = person.fails("wandb-cred token --profile wrk", 78);
    person.works(&said.that_begins("export "));
    person.works("wandb-cred token");
    assert!(said.err.contains("add --profile work"), "{said:?}");
}

#[test]
fn a_profile_that_a_variable_still_names() {
    let mut person = Person::configured();
    person.puts_token();
    person.sets("WANDB_CRED_PROFILE", "of-last-week");
    let said = person.fails("wandb-cred exec -- true", 78);
    person.follows(&said);
}

#[test]
fn two_profiles_and_no_word_which() {
    let mut person = Person::new();
    person.writes_config(&(person.profile("work") + &person.profile("eval")));
    person.puts_token();
    let said = person.fails("wandb-cred exec -- true", 78);
    person.follows(&said);
}

#[test]
fn a_program_that_there_is_not() {
    let mut person = Person::configured();
    // Before anything is waited for: there is no token here.
    let said = person.fails("wandb-cred exec -- pyhton train.py", 127);
    assert_ne!(person.types(&said.first()).code, 64);
    person.puts_token();
    person.works("wandb-cred exec -- true");
}

#[test]
fn a_script_that_may_not_be_run() {
    let mut person = Person::configured();
    person.puts_token();
    person.writes(&person.path("train.sh"), "#!/bin/sh\nexit 0\n");
    let said = person.fails("wandb-cred exec -- ./train.sh", 126);
    person.follows(&said);
}

#[test]
fn a_socket_that_is_no_path() {
    let mut person = Person::configured();
    person.puts_token();
    person.sets("WANDB_CRED_SOCKET", "here.sock");
    let said = person.fails("wandb-cred lock", 78);
    person.works(&said.first());
    person.works("wandb-cred exec -- true");
}

#[test]
fn no_daemon_for_what_starts_none() {
    for line in ["wandb-cred status", "wandb-cred lock", "wandb-cred unlock"] {
        let mut person = Person::configured();
        person.puts_token();
        let said = person.fails(line, 69);
        let daemon = said.first();
        assert_eq!(daemon, "wandb-credd &", "no service manager runs here");
        // As in a shell that goes on: until it answers, and then the line again.
        let daemon = daemon.replace('&', ">/dev/null 2>&1 &");
        let again = format!("{daemon} until wandb-cred status; do sleep 0.1; done >/dev/null 2>&1; {line}");
        person.works(&again);
    }
}

#[test]
fn more_life_than_a_token_has() {
    let mut person = Person::configured();
    person.puts_token();
    let said = person.fails("wandb-cred token --min-ttl 30h", 75);
    assert!(!said.err.contains("refresh"), "it cannot help: {said:?}");
    person.works(&said.first());
}

#[test]
fn a_folder_that_others_may_enter() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut person = Person::configured();
    person.puts_token();
    let folder = person.path("run/wandb-cred");
    std::fs::create_dir(&folder).expect("made");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let said = person.fails("wandb-cred status", 69);
    person.works(&said.first());
    assert_eq!(person.types("wandb-cred status").code, 69, "no daemon, and nothing else");
    person.works("wandb-cred exec -- true");
}

#[test]
fn a_locked_daemon() {
    for line in ["wandb-cred token", "wandb-cred exec -- true", "wandb-cred env", "wandb-cred refresh"] {
        let mut person = Person::configured();
        person.puts_token();
        person.works("wandb-cred token");
        person.works("wandb-cred lock");
        let said = person.fails(line, 77);
        // W&B takes each JWT once.
        person.puts_token();
        person.follows(&said);
    }
}

#[test]
fn a_service_where_no_manager_runs() {
    let mut person = Person::configured();
    person.puts_token();
    let said = person.fails("wandb-cred service install", 69);
    person.works(&said.first().replace("CMD", "true"));
}
