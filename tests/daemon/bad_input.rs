//! Every wrong configuration, file and token: what is said names the place and the next step, and the other
//! profiles go on.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::setup::{DAEMON, Home, Sandbox, ran};

fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_mistake_in_one_profile_is_told_at_its_line_and_the_other_profile_goes_on() {
    let sandbox = Sandbox::start(&[]);
    let good = format!("default-profile = \"good\"\n{}", sandbox.profile("good"));
    let line = |offset: usize| good.lines().count() + offset;
    for (bad, at, words) in [
        (
            "[profile.bad]\naudeince = \"x\"\n",
            Some(2),
            vec!["unknown key `audeince`", "did you mean `audience`?"],
        ),
        ("[profile.bad.provider.fiel]\npath = \"/x\"\n", Some(1), vec!["unknown kind `fiel`", "`file`"]),
        ("[profile.bad.provider.file]\npath = 7\n", Some(2), vec!["wrong type of value"]),
        ("[profile.bad.provider.file]\n", Some(1), vec!["path"]),
        ("[profile.bad]\nbase-url = \"http://wandb.example\"\n", Some(2), vec!["https"]),
        ("[profile.bad]\nbase-url = \"wandb.example\"\n", Some(2), vec!["is not a URL"]),
        ("[profile.bad]\naudience = \"x\"\n", None, vec!["no provider", "[profile.bad.provider.KIND]"]),
        ("[profile.bad.provider.command]\nargv = []\n", None, vec!["argv is empty"]),
        ("[profile.bad.provider.command]\nargv = \"x\"\n", Some(2), vec!["expected a sequence"]),
        ("[profile.bad.provider.command]\nargv = [\"x\"]\ntimeout = \"1h\"\n", None, vec!["timeout must be"]),
        (
            "[profile.bad.provider.command]\nargv = [\"x\"]\ntimeout = \"soon\"\n",
            Some(3),
            vec!["not a duration"],
        ),
        ("[profile.bad.provider.file]\npath = \"here\"\n", None, vec!["path must be absolute"]),
        ("[profile.bad.provider.env]\nvariable = \"$X\"\n", None, vec!["not a variable name"]),
    ] {
        let home = Home::new(&format!("{good}{bad}"));
        let checked = ran(&mut home.program(DAEMON, &["check"]));
        assert_eq!((checked.code, checked.out.as_str()), (Some(78), ""), "{bad}: {}", checked.err);
        let path = home.config().display().to_string();
        assert!(checked.err.contains(&path) && checked.err.contains("`bad`"), "{bad}: {}", checked.err);
        if let Some(offset) = at {
            let place = format!("{path}:{}:", line(offset));
            assert!(checked.err.contains(&place), "{bad}: {place} expected in {}", checked.err);
        }
        for word in &words {
            assert!(checked.err.contains(word), "{bad}: `{word}` expected in {}", checked.err);
        }
        let daemon = home.daemon();
        assert!(daemon.token("").starts_with("wb_at_"), "{bad}");
        let told = home.run(&["token", "--profile", "bad"]);
        assert_eq!((told.code, told.out.as_str()), (Some(78), ""), "{bad}: {}", told.err);
        assert!(
            told.err.contains("profile `bad`") && told.err.contains("next: wandb-cred check"),
            "{}",
            told.err
        );
        assert!(told.err.contains(words[0]), "{bad}: `{}` expected in {}", words[0], told.err);
    }
}

#[test]
fn a_mistake_in_the_file_as_a_whole_refuses_the_start() {
    for (text, words) in [
        ("", vec!["[profile.NAME]", "wandb-cred init"]),
        (
            "defualt-profile = \"x\"\n[profile.x.provider.file]\npath = \"/x\"\n",
            vec![":1:", "`default-profile`"],
        ),
        (
            "default-profile = \"y\"\n[profile.x.provider.file]\npath = \"/x\"\n",
            vec![":1:", "no [profile.y]"],
        ),
        ("[profile.x\n", vec![":1:"]),
        ("[profile.x]\n[profile.x]\n", vec![":2:", "duplicate"]),
        ("[profile.\"a/b\".provider.file]\npath = \"/x\"\n", vec![":1:", "no profile name"]),
        ("profile = 3\n", vec![":1:", "[profile.NAME]"]),
    ] {
        let home = Home::new(text);
        for refused in [home.refused(), ran(&mut home.program(DAEMON, &["check"]))] {
            assert_eq!((refused.code, refused.out.as_str()), (Some(78), ""), "{text}: {}", refused.err);
            let path = home.config().display().to_string();
            assert!(refused.err.contains(&path), "{text}: {}", refused.err);
            for word in &words {
                assert!(refused.err.contains(word), "{text}: `{word}` expected in {}", refused.err);
            }
        }
        assert!(!home.socket().exists(), "{text}: a daemon that did not start left a socket");
    }
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
    assert!(refused.err.contains("cannot read") && refused.err.contains("config.toml"), "{}", refused.err);
    fs::remove_dir(home.config()).expect("removed");
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains("wandb-cred init"), "{}", refused.err);
}

#[test]
fn a_runtime_folder_that_is_open_or_a_symlink_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let run = home.path("run");
    fs::create_dir(&run).expect("made");
    chmod(&run, 0o750);
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains(&format!("chmod 700 {}", run.display())), "{}", refused.err);
    fs::rename(&run, home.path("elsewhere")).expect("renamed");
    chmod(&home.path("elsewhere"), 0o700);
    symlink(home.path("elsewhere"), &run).expect("linked");
    let refused = home.refused();
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains("symlink") && refused.err.contains("WANDB_CRED_SOCKET"), "{}", refused.err);
    fs::remove_file(&run).expect("removed");
    fs::write(&run, "a file").expect("written");
    assert_eq!(home.refused().code, Some(78));
    assert_eq!(fs::read_to_string(&run).expect("there"), "a file");
}

#[test]
fn an_sdk_folder_that_is_no_private_folder_is_told_and_the_socket_serves_all_the_same() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    fs::create_dir_all(home.path("run/profiles")).expect("made");
    chmod(&home.path("run"), 0o700);
    fs::create_dir(home.path("elsewhere")).expect("made");
    symlink(home.path("elsewhere"), home.path("run/profiles/work")).expect("linked");
    let daemon = home.daemon();
    assert!(daemon.token("").starts_with("wb_at_"));
    let job = home.run(&["exec", "--", "true"]);
    assert_eq!(job.code, Some(75), "{}", job.err);
    assert!(job.err.contains("profiles/work") && job.err.contains("symlink"), "{}", job.err);
    assert!(
        fs::read_dir(home.path("elsewhere")).expect("there").next().is_none(),
        "written through a symlink"
    );
}

/// A JWT of these claims that nobody signed.
fn unsigned(claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"ES256","typ":"JWT"}"#), part(claims), part("no signature at all"))
}

#[test]
fn each_bad_identity_token_is_told_from_the_others() {
    let sandbox = Sandbox::start(&[]);
    let control = sandbox.control();
    let foreign = unsigned(r#"{"iss":"https://x.example","sub":"s","aud":"sandbox","exp":4102444800}"#);
    // What is wrong, the exit code, the words, and whether it is the file's own fault (it is named then).
    for (content, exit, words, file) in [
        (String::new(), 75, "it is empty", true),
        ("hello".to_owned(), 78, "not a JWT", true),
        ("a.b.c".to_owned(), 78, "JWT", true),
        ("x".repeat(200_000), 78, "limit", true),
        ("\0\u{1}.\u{2}.\u{3}".to_owned(), 78, "JWT", true),
        (unsigned(r#"{"aud":"sandbox"}"#), 78, "exp", true),
        (unsigned(r#"{"aud":"sandbox","exp":1000000000}"#), 75, "expired", true),
        (control.mint("audience=other"), 78, "audience `other`, but [profile.work] expects `sandbox`", false),
        (control.mint("subject=nobody"), 78, "No user or service account matches", false),
        (foreign, 78, "issuer", false),
    ] {
        let home = Home::new("");
        // Old enough to be no file that is being written.
        let jwt = home.write("jwt", &content);
        let old = fs::File::options().write(true).open(&jwt).expect("opened");
        old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
            .expect("aged");
        home.write_config(&sandbox.file_profile("work", &jwt));
        let daemon = home.daemon();
        let told = home.run(&["token", "--wait", "2"]);
        assert_eq!((told.code, told.out.as_str()), (Some(exit), ""), "{words}: {}", told.err);
        assert!(told.err.contains(words) && told.err.contains("profile `work`"), "{words}: {}", told.err);
        assert!(told.err.contains("next: wandb-cred"), "{words}: {}", told.err);
        if file {
            assert!(told.err.contains(&jwt.display().to_string()), "{words}: {}", told.err);
        }
        drop(daemon);
    }
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

#[test]
fn wrong_usage_of_the_daemon_ends_with_64() {
    let home = Home::new("");
    for arguments in [&["--frobnicate"][..], &["serve"], &["run", "--log-level", "loud"]] {
        let told = ran(&mut home.program(DAEMON, arguments));
        assert_eq!((told.code, told.out.as_str()), (Some(64), ""), "{arguments:?}");
    }
}
