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
        "FILE:11:21: profile `b`: unknown kind `github`",
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
