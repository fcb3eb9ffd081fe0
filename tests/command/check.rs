//! `check`: every mistake in one run, each with its line, and no value shown.

use crate::fake_daemon::{Ran, bare, ran};

fn check(text: &str) -> Ran {
    let home = tempfile::tempdir().expect("temp dir");
    let config = home.path().join("config.toml");
    std::fs::write(&config, text).expect("written");
    let mut ran = ran(bare(home.path(), &["check"])
        .env("WANDB_CREDD", env!("CARGO_BIN_EXE_wandb-credd"))
        .env("WANDB_CRED_CONFIG", &config));
    ran.err = ran.err.replace(&config.display().to_string(), "FILE");
    ran
}

#[test]
fn all_mistakes_come_in_one_run_with_their_lines() {
    let ran = check(
        r#"defualt-profile = "a"

[profile.a]
audeince = "planted"
base-url = "api.wandb.ai"

[profile.a.provider.command]
argv = "planted"
timeot = "planted"

[profile.b.provider.github]

[profile.c.provider.env]
variable = "X"

[profile.c.provider.file]
path = "/planted"

[profile.d.provider.command]
argv = ["x", 7]
"#,
    );
    assert_eq!((ran.code, ran.out.as_str()), (78, ""));
    let expected = [
        "FILE:1:1: unknown key `defualt-profile`",
        "  |\n 1 | defualt-profile = …\n   | ^^^^^^^^^^^^^^^\n",
        "FILE:4:1: profile `a`: unknown key `audeince`",
        "did you mean `audience`?",
        " 4 | audeince = …\n   | ^^^^^^^^\n",
        "FILE:5:12: profile `a`:",
        " 5 | base-url = …\n   |            ^\n",
        "FILE:8:8: profile `a`: `argv` must be a list of strings\n",
        " 8 | argv = …\n   |        ^\n",
        "FILE:9:1: profile `a`: unknown key `timeot`",
        "FILE:11:21: profile `b`: unknown provider `github`",
        "did you mean `github-actions`?\n",
        " 11 | [profile.b.provider.github]\n    |                     ^^^^^^\n",
        "FILE:16:21: profile `c`: choose one provider: a profile has one, and here are `env` and `file`\n",
        "FILE:20:14: profile `d`: each entry of `argv` must be a string, in quotes\n",
    ];
    let mut rest = ran.err.as_str();
    for words in expected {
        let at =
            rest.find(words).unwrap_or_else(|| panic!("`{words}` is not here, or too early:\n{}", ran.err));
        rest = &rest[at + words.len()..];
    }
    assert!(!ran.err.contains("planted"), "{}", ran.err);
}

#[test]
fn what_a_provider_cannot_use_is_shown_at_its_key() {
    let ran = check("[profile.a.provider.command]\nargv = [\"true\"]\ntimeout = \"1h\"\n");
    assert_eq!(ran.code, 78);
    assert!(
        ran.err.contains("FILE:3:1: profile `a`: ") && ran.err.contains(" 3 | timeout = …\n"),
        "{}",
        ran.err
    );
}

/// What is wrong, where, and what the message must say.
fn says(text: &str, place: &str, words: &str) {
    let ran = check(text);
    assert_eq!((ran.code, ran.out.as_str()), (78, ""), "{text}");
    let said = format!("FILE:{place}: ");
    let line = ran.err.lines().find(|line| line.contains(&said));
    assert!(line.is_some_and(|line| line.contains(words)), "{text}: {}", ran.err);
    assert!(!ran.err.contains("planted"), "{}", ran.err);
    let mistakes = ran.err.lines().filter(|line| line.contains("FILE:")).count();
    assert_eq!(mistakes, 1, "one mistake is told once: {}", ran.err);
    assert!(ran.err.ends_with("  next: edit FILE, then: wandb-cred check\n"), "{}", ran.err);
}

const FILE: &str = "[profile.a.provider.file]\npath = \"/x\"\n";

#[test]
fn what_belongs_to_a_profile_is_said_to() {
    says(
        &format!("audience = \"planted\"\n{FILE}"),
        "1:1",
        "`audience` is a key of a profile: write it below [profile.NAME]",
    );
    says(&format!("{FILE}[provider.file]\npath = \"/x\"\n"), "3:2", "write [profile.NAME.provider.KIND]");
    says(&FILE.replace("profile", "Profile"), "1:2", "did you mean `profile`?");
}

#[test]
fn a_provider_is_a_table_of_its_kinds_name() {
    let provider = |written: &str| format!("[profile.a]\nprovider = {written}\n");
    says(&provider("\"file\""), "2:12", "write [profile.a.provider.");
    says("[profile.a.provider]\nkind = \"file\"\npath = \"/x\"\n", "2:1", "write [profile.a.provider.file]");
    says("[profile.a.provider]\n", "1:1", "there is no provider; write [profile.a.provider.KIND]");
    says(&FILE.replace(".file", ".FILE"), "1:21", "did you mean `file`?");
    says(&FILE.replace(".file", ".github_actions"), "1:21", "did you mean `github-actions`?");
}

#[test]
fn what_is_there_twice_is_said_once() {
    says(&format!("{FILE}path = \"/y\"\n"), "3:1", "`path` is there twice in one table");
    says(&format!("{FILE}[profile.a.provider.file]\npath = \"/x\"\n"), "3:21", "this table is there twice");
}

#[test]
fn what_is_not_toml_is_told_what_to_be() {
    let audience = |written: &str| format!("[profile.a]\naudience{written}\n{FILE}");
    says(&audience(" = planted"), "2:12", "text must be in quotes: write audience = \"...\"");
    says(&audience(" = “planted”"), "2:12", "these quotes are not TOML's: write audience = \"...\"");
    says(&audience(": \"planted\""), "2:9", "a line must be `key = value`");
    says(&audience(" = \"planted"), "2:20", "the closing quote is missing");
    says("{\"profile\": {}}\n", "1:1", "this is JSON; the file must be TOML");
    says("[profile.a\nx = 1\n", "1:11", "the closing bracket is missing");
}

#[test]
fn values_are_said_to_be_of_their_type_and_are_not_shown() {
    let command = |written: &str| format!("[profile.a.provider.command]\nargv = [\"x\"]\n{written}\n");
    for wrong in ["\"planted\"", "10", "\"-5s\"", "\"\"", "true"] {
        says(
            &command(&format!("timeout = {wrong}")),
            "3:11",
            "`timeout` must be a duration like \"30s\", \"5m\" or \"2h\"",
        );
    }
    let oidc = |written: &str| {
        format!("[profile.a.provider.oidc]\nissuer = \"https://i.example\"\nclient-id = \"c\"\n{written}\n")
    };
    says(&oidc("redirect-port = 99999"), "4:17", "`redirect-port` must be a whole number from 0 to 65535");
    says(&oidc("flow = \"planted\""), "4:8", "`flow` must be one of \"code\", \"implicit\"");
    says(&oidc("flow = \"implicit_\""), "4:8", "did you mean `implicit`?");
    says(
        &format!("allow-uids = [-1]\n{FILE}"),
        "1:15",
        "each entry of `allow-uids` must be a whole number, 0 or more",
    );
    let network = |written: &str| format!("[profile.a]\n{written}\n{FILE}");
    says(&network("proxy = 3128"), "2:9", "`proxy` must be true, for the loopback proxy, or the URL");
    says(&network("proxy = \"planted:3128\""), "2:1", "`proxy` is not the URL of a proxy");
    says(&network("allow-plain-http = true"), "2:20", "`allow-plain-http` must be a network like");
    says(&network("allow-plain-http = \"10.0.0.0\""), "2:1", "write it like \"10.0.0.0/8\"");
    says(&network("ca-file = \"/nonexistent\""), "2:1", "cannot read /nonexistent");
    says(&network("base-url = \"ada:planted@wandb.corp\""), "2:12", "write it like \"https://api.wandb.ai\"");
}

#[test]
fn an_issuer_says_how_it_is_written() {
    let oidc =
        |issuer: &str| format!("[profile.a.provider.oidc]\nissuer = \"{issuer}\"\nclient-id = \"c\"\n");
    says(&oidc("idp.example"), "2:1", "write \"https://idp.example\"");
    says(&oidc("idp.example:8443/x"), "2:1", "write \"https://idp.example:8443/x\"");
    says(&oidc("http://idp.example"), "2:1", "must be reached by https");
}

#[test]
fn other_line_ends_and_marks_are_no_mistakes() {
    let ran = check(&format!("\u{feff}{}", FILE.replace('\n', "\r\n")));
    assert_eq!(ran.code, 0, "{}", ran.err);
    says(
        &format!("\u{feff}# first\r\n[profile.a]\r\naudeince = \"planted\"\r\n{FILE}"),
        "3:1",
        "did you mean `audience`?",
    );
}

#[test]
fn syntax_shows_no_value_either() {
    let ran = check("[profile.a.provider.oidc]\nclient-secret \"planted\"\nissuer = planted\n");
    assert_eq!(ran.code, 78);
    assert!(ran.err.contains("FILE:2:15: ") && ran.err.contains("\n 2 | …\n"), "{}", ran.err);
    assert!(!ran.err.contains("planted"), "{}", ran.err);
}

/// `exec` without --profile would be refused.
#[test]
fn several_profiles_need_a_default() {
    let two = "[profile.a.provider.file]\npath = \"/x\"\n[profile.b.provider.file]\npath = \"/y\"\n";
    let ran = check(two);
    assert_eq!(ran.code, 78);
    assert!(
        ran.err.contains("several profiles (a, b)") && ran.err.contains("default-profile = \"a\""),
        "{}",
        ran.err
    );
    let ran = check(&format!("default-profile = \"a\"\n{two}"));
    assert_eq!((ran.code, ran.out.as_str()), (0, "ok: 2 profile(s): a, b\n"), "{}", ran.err);
}
