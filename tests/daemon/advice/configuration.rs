//! A configuration that is wrong, missing, or not one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::Person;

/// `exec` says the mistake, `check` shows it; then it is edited.
fn mistake(right: &str, wrong: &str, shown: &str) {
    let mut person = Person::configured();
    person.puts_token();
    person.edits_config(right, wrong);
    let said = person.fails("wandb-cred exec -- true", 78);
    let checked = person.fails(&said.first(), 78);
    assert!(checked.err.contains(shown), "{checked:?}");
    assert!(checked.err.contains('^') || checked.err.contains("config.toml: "), "{checked:?}");
    person.edits_config(wrong, right);
    person.works(&checked.first());
    person.works("wandb-cred exec -- true");
}

#[test]
fn a_key_that_there_is_not() {
    mistake("audience", "audeince", "did you mean `audience`?");
}

#[test]
fn a_kind_that_there_is_not() {
    mistake("provider.file]", "provider.files]", "did you mean `file`?");
}

#[test]
fn a_kind_in_capitals() {
    mistake("provider.file]", "provider.FILE]", "did you mean `file`?");
}

#[test]
fn a_value_of_another_type() {
    mistake("audience = \"sandbox\"", "audience = 7", "`audience` must be a string, in quotes");
}

#[test]
fn a_line_that_is_not_toml() {
    mistake("audience = ", "audience: ", "a line must be `key = value`");
}

#[test]
fn quotes_of_a_word_processor() {
    mistake("\"sandbox\"", "“sandbox”", "these quotes are not TOML's: write audience = \"...\"");
}

#[test]
fn the_kind_as_a_key() {
    mistake(
        "[profile.work.provider.file]",
        "[profile.work.provider]\nkind = \"file\"",
        "write [profile.work.provider.file]",
    );
}

#[test]
fn a_relative_path() {
    mistake("path = \"/", "path = \"", "path must be absolute");
}

#[test]
fn a_server_without_a_scheme() {
    mistake("base-url = \"http://", "base-url = \"", "write \"http://127.0.0.1:");
}

#[test]
fn the_same_table_twice() {
    mistake("audience = ", "[profile.work]\naudience = ", "this table is there twice");
}

#[test]
fn a_proxy_without_a_scheme() {
    let mut person = Person::configured();
    person.edits_config("audience = ", "proxy = \"proxy.corp:3128\"\naudience = ");
    let checked = person.fails("wandb-cred check", 78);
    assert!(checked.err.contains("write it like \"http://proxy.example.com:3128\""), "{checked:?}");
    person.edits_config("proxy.corp", "http://proxy.corp");
    person.works(&checked.first());
}

#[test]
fn certificates_that_are_not_there() {
    let mut person = Person::configured();
    person.edits_config("audience = ", "ca-file = \"/nonexistent.pem\"\naudience = ");
    let checked = person.fails("wandb-cred check", 78);
    assert!(checked.err.contains("/nonexistent.pem") && checked.err.contains(" | ca-file = "), "{checked:?}");
    person.edits_config("ca-file = \"/nonexistent.pem\"\n", "");
    person.works(&checked.first());
}

#[test]
fn a_file_that_others_may_write() {
    let mut person = Person::configured();
    person.puts_token();
    fs::set_permissions(person.config(), fs::Permissions::from_mode(0o666)).expect("chmod");
    for line in ["wandb-cred check", "wandb-cred exec -- true"] {
        fs::set_permissions(person.config(), fs::Permissions::from_mode(0o666)).expect("chmod");
        let said = person.fails(line, 78);
        person.follows(&said);
    }
}

#[test]
fn a_file_with_nothing_in_it() {
    let mut person = Person::configured();
    person.puts_token();
    person.writes_config("");
    // What `init` finds.
    let token = person.path("token.jwt").display().to_string();
    person.sets("WANDB_IDENTITY_TOKEN_FILE", token);
    let said = person.fails("wandb-cred exec -- true", 78);
    let said = person.fails(&said.that_begins("wandb-cred check"), 78);
    person.works(&said.that_begins("wandb-cred init"));
    person.works("wandb-cred check");
}

#[test]
fn a_variable_that_names_no_file() {
    let mut person = Person::configured();
    person.puts_token();
    person.sets("WANDB_CRED_CONFIG", "/nonexistent/config.toml");
    for line in ["wandb-cred check", "wandb-cred exec -- true"] {
        person.sets("WANDB_CRED_CONFIG", "/nonexistent/config.toml");
        let said = person.fails(line, 78);
        person.works(&said.that_begins("unset "));
        person.works(line);
    }
}

#[test]
fn a_folder_or_a_pipe_in_its_place() {
    for make in ["mkdir", "mkfifo"] {
        let mut person = Person::new();
        person.puts_token();
        let token = person.path("token.jwt").display().to_string();
        person.sets("WANDB_IDENTITY_TOKEN_FILE", token);
        person.works(&format!("mkdir -p .config/wandb-cred && {make} .config/wandb-cred/config.toml"));
        let said = person.fails("wandb-cred exec -- true", 78);
        person.works("mv .config/wandb-cred/config.toml elsewhere");
        person.works(&said.that_begins("wandb-cred init"));
        person.works("wandb-cred check");
    }
}

#[test]
fn init_where_there_is_one_already() {
    let mut person = Person::configured();
    person.puts_token();
    let token = person.path("token.jwt").display().to_string();
    person.sets("WANDB_IDENTITY_TOKEN_FILE", token);
    let said = person.fails("wandb-cred init", 78);
    person.works(&said.first());
    person.works(&said.that_begins("wandb-cred init"));
}

#[test]
fn init_in_ci_without_a_word_on_the_audience() {
    let mut person = Person::new();
    for (name, value) in [
        ("GITHUB_ACTIONS", "true"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example/?x=1"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "planted"),
    ] {
        person.sets(name, value);
    }
    let said = person.fails("wandb-cred init", 78);
    person.works(&said.first().replace("NAME", "acme"));
    person.works("wandb-cred check");
}
