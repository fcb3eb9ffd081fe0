//! Mistakes in the configuration: in one profile, in the file as a whole, in who may write it.

use std::fs;

use super::chmod;
use crate::setup::{DAEMON, Home, Sandbox, ran};

#[test]
fn an_unknown_key_is_reported_and_the_other_profile_works() {
    mistake_in_profile(
        "[profile.bad]\naudeince = \"x\"\n",
        Some(2),
        &["unknown key `audeince`", "did you mean `audience`?"],
    );
}

#[test]
fn an_unknown_kind_of_provider_is_reported_and_the_other_profile_works() {
    mistake_in_profile(
        "[profile.bad.provider.fiel]\npath = \"/x\"\n",
        Some(1),
        &["unknown provider `fiel`", "`file`"],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_reported_and_the_other_profile_works() {
    mistake_in_profile("[profile.bad.provider.file]\npath = 7\n", Some(2), &["`path` must be a string"]);
}

#[test]
fn a_missing_key_is_reported_and_the_other_profile_works() {
    mistake_in_profile("[profile.bad.provider.file]\n", Some(1), &["path"]);
}

#[test]
fn a_base_url_over_plain_http_is_reported_and_the_other_profile_works() {
    mistake_in_profile("[profile.bad]\nbase-url = \"http://wandb.example\"\n", Some(2), &["https"]);
}

#[test]
fn a_base_url_without_scheme_is_reported_and_the_other_profile_works() {
    mistake_in_profile(
        "[profile.bad]\nbase-url = \"wandb.example\"\n",
        Some(2),
        &["has no scheme", "https://wandb.example"],
    );
}

#[test]
fn a_profile_without_provider_is_reported_and_the_other_profile_works() {
    mistake_in_profile(
        "[profile.bad]\naudience = \"x\"\n",
        None,
        &["no provider", "[profile.bad.provider.KIND]"],
    );
}

#[test]
fn an_empty_command_is_reported_and_the_other_profile_works() {
    mistake_in_profile("[profile.bad.provider.command]\nargv = []\n", None, &["argv is empty"]);
}

#[test]
fn a_command_that_is_no_list_is_reported_and_the_other_profile_works() {
    mistake_in_profile(
        "[profile.bad.provider.command]\nargv = \"x\"\n",
        Some(2),
        &["`argv` must be a list of strings"],
    );
}

#[test]
fn a_timeout_that_is_too_long_is_reported_and_the_other_profile_works() {
    mistake_in_profile(
        "[profile.bad.provider.command]\nargv = [\"x\"]\ntimeout = \"1h\"\n",
        None,
        &["timeout must be"],
    );
}

#[test]
fn a_timeout_that_is_no_duration_is_reported_and_the_other_profile_works() {
    mistake_in_profile(
        "[profile.bad.provider.command]\nargv = [\"x\"]\ntimeout = \"soon\"\n",
        Some(3),
        &["`timeout` must be a duration like"],
    );
}

#[test]
fn a_relative_path_is_reported_and_the_other_profile_works() {
    mistake_in_profile("[profile.bad.provider.file]\npath = \"here\"\n", None, &["path must be absolute"]);
}

#[test]
fn a_variable_with_a_dollar_sign_is_reported_and_the_other_profile_works() {
    mistake_in_profile("[profile.bad.provider.env]\nvariable = \"$X\"\n", None, &["not a variable name"]);
}

/// `bad` is a profile with a mistake, in this line of its own; the first words also reach who asks for its token.
fn mistake_in_profile(bad: &str, line: Option<usize>, words: &[&str]) {
    let sandbox = Sandbox::start(&[]);
    let good = format!("default-profile = \"good\"\n{}", sandbox.profile("good"));
    let home = Home::new(&format!("{good}{bad}"));
    let checked = ran(&mut home.program(DAEMON, &["check"]));
    assert_eq!((checked.code, checked.out.as_str()), (Some(78), ""), "{}", checked.err);
    let path = home.config().display().to_string();
    assert!(checked.err.contains(&path) && checked.err.contains("`bad`"), "{}", checked.err);
    if let Some(line) = line {
        let place = format!("{path}:{}:", good.lines().count() + line);
        assert!(checked.err.contains(&place), "{place} expected in {}", checked.err);
    }
    for word in words {
        assert!(checked.err.contains(word), "`{word}` expected in {}", checked.err);
    }
    let daemon = home.daemon();
    assert!(daemon.token("").starts_with("wb_at_"));
    let told = home.run(&["token", "--profile", "bad"]);
    assert_eq!((told.code, told.out.as_str()), (Some(78), ""), "{}", told.err);
    assert!(
        told.err.contains("profile `bad`") && told.err.contains("next: wandb-cred check"),
        "{}",
        told.err
    );
    assert!(told.err.contains(words[0]), "`{}` expected in {}", words[0], told.err);
}

#[test]
fn an_empty_file_prevents_the_start() {
    mistake_in_file("", &["[profile.NAME]", "wandb-cred init"]);
}

#[test]
fn an_unknown_key_of_the_file_prevents_the_start() {
    mistake_in_file(
        "defualt-profile = \"x\"\n[profile.x.provider.file]\npath = \"/x\"\n",
        &[":1:", "`default-profile`"],
    );
}

#[test]
fn a_default_profile_that_does_not_exist_prevents_the_start() {
    mistake_in_file(
        "default-profile = \"y\"\n[profile.x.provider.file]\npath = \"/x\"\n",
        &[":1:", "no [profile.y]"],
    );
}

#[test]
fn a_bracket_that_is_not_closed_prevents_the_start() {
    mistake_in_file("[profile.x\n", &[":1:"]);
}

#[test]
fn a_profile_that_is_there_twice_prevents_the_start() {
    mistake_in_file("[profile.x]\n[profile.x]\n", &[":2:", "this table is there twice"]);
}

#[test]
fn a_slash_in_a_profile_name_prevents_the_start() {
    mistake_in_file("[profile.\"a/b\".provider.file]\npath = \"/x\"\n", &[":1:", "not a profile name"]);
}

#[test]
fn a_profile_that_is_no_table_prevents_the_start() {
    mistake_in_file("profile = 3\n", &[":1:", "[profile.NAME]"]);
}

fn mistake_in_file(text: &str, words: &[&str]) {
    let home = Home::new(text);
    for refused in [home.refused(), ran(&mut home.program(DAEMON, &["check"]))] {
        assert_eq!((refused.code, refused.out.as_str()), (Some(78), ""), "{}", refused.err);
        let path = home.config().display().to_string();
        assert!(refused.err.contains(&path), "{}", refused.err);
        for word in words {
            assert!(refused.err.contains(word), "`{word}` expected in {}", refused.err);
        }
    }
    assert!(!home.socket().exists(), "a daemon that did not start left a socket");
}

#[test]
fn a_configuration_that_others_can_write_or_that_cannot_be_read_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    for mode in [0o666, 0o620] {
        chmod(&home.config(), mode);
        let refused = home.refused();
        assert_eq!(refused.code, Some(78), "{}", refused.err);
        let next = format!("chmod go-w {}", home.config().display());
        assert!(
            refused.err.contains(&next) && refused.err.contains(&format!("{mode:04o}")),
            "{}",
            refused.err
        );
    }
    chmod(&home.config(), 0o644);
    drop(home.daemon());
    fs::remove_file(home.config()).expect("removed");
    fs::create_dir(home.config()).expect("made");
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains("config.toml is a folder"), "{}", refused.err);
    fs::remove_dir(home.config()).expect("removed");
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains("wandb-cred init"), "{}", refused.err);
}

#[test]
fn a_configuration_that_others_can_replace_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    chmod(&home.config(), 0o600);
    for mode in [0o777, 0o770, 0o707] {
        chmod(&home.path(""), mode);
        let refused = home.refused();
        assert_eq!(refused.code, Some(78), "{mode:o}: {}", refused.err);
        assert!(refused.err.contains(&format!("mode {mode:04o}")), "{}", refused.err);
        assert!(refused.err.contains("chmod go-w"), "{}", refused.err);
    }
    chmod(&home.path(""), 0o755);
    drop(home.daemon());
}

#[test]
fn a_configuration_that_is_a_fifo_is_refused_at_once() {
    let home = Home::new("");
    fs::remove_file(home.config()).expect("removed");
    let made = ran(std::process::Command::new("mkfifo").args(["-m", "600"]).arg(home.config()));
    assert_eq!(made.code, Some(0), "{}", made.err);
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains("not a regular file"), "{}", refused.err);
}

#[test]
fn an_unknown_profile_is_told_with_the_nearest_and_all_known_names() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&format!("{}{}", sandbox.profile("work"), sandbox.profile("eval")));
    let _daemon = home.daemon();
    let told = home.run(&["token", "--profile", "wrok"]);
    assert_eq!(told.code, Some(78), "{}", told.err);
    assert!(told.err.contains("did you mean `work`?") && told.err.contains("eval, work"), "{}", told.err);
    let none = home.run(&["token"]);
    assert_eq!(none.code, Some(78), "{}", none.err);
    assert!(none.err.contains("default-profile") && none.err.contains("eval, work"), "{}", none.err);
}

#[test]
fn a_program_that_is_not_there_is_told_by_name() {
    let sandbox = Sandbox::start(&[]);
    let config = format!(
        "[profile.work]\nbase-url = \"{}\"\n[profile.work.provider.command]\nargv = [\"/no/such/program\"]\n",
        sandbox.url
    );
    let home = Home::new(&config);
    let _daemon = home.daemon();
    let told = home.run(&["token"]);
    assert_eq!(told.code, Some(78), "{}", told.err);
    assert!(told.err.contains("/no/such/program") && told.err.contains("argv[0]"), "{}", told.err);
}
