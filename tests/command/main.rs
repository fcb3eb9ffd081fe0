//! Runs the built command against a daemon of canned answers: every subcommand, exit code and error text.

mod check;
mod completions;
mod daemon_answers;
mod exec;
mod fake_daemon;
mod feed;
mod files;
mod login;
mod problems;
mod service;
mod status;
mod terminal;
mod versions;
mod waiting;

use fake_daemon::{FakeDaemon, bare, on, ran};

const TOKEN: &str = r#"{"access_token":"wb_at_1","token_type":"Bearer","expires_at":"2030-01-02T03:04:05Z","expires_in":3600,"base_url":"https://api.wandb.ai","profile":"work"}"#;

fn token_daemon() -> FakeDaemon {
    FakeDaemon::start(vec![on("GET /v1/token", 200, TOKEN)])
}

#[test]
fn token_prints_plain() {
    prints("plain", "wb_at_1\n");
    assert_eq!(token_daemon().run(&["token"]).out, "wb_at_1\n", "the default");
}

#[test]
fn token_tells_the_ci_system_to_mask_it_first() {
    let daemon = token_daemon();
    let ran = ran(daemon.command(&["token", "-f", "json"]).env("WANDB_CRED_MASK", "::add-mask::"));
    assert_eq!((ran.out.trim_end(), ran.err.as_str()), (TOKEN, "::add-mask::wb_at_1\n"));
    assert_eq!(daemon.run(&["token"]).err, "");
}

#[test]
fn token_prints_a_header() {
    prints("header", "Authorization: Bearer wb_at_1\n");
}

#[test]
fn token_prints_variables() {
    prints(
        "env",
        "WANDB_CRED_ACCESS_TOKEN=wb_at_1\nWANDB_CRED_EXPIRES_AT=2030-01-02T03:04:05Z\nWANDB_BASE_URL=https://api.wandb.ai\n",
    );
}

#[test]
fn token_prints_what_a_credential_process_prints() {
    prints(
        "credential-process",
        "{\"Version\":1,\"AccessToken\":\"wb_at_1\",\"TokenType\":\"Bearer\",\"Expiration\":\"2030-01-02T03:04:05Z\"}\n",
    );
}

#[test]
fn token_prints_json() {
    assert_eq!(token_daemon().run(&["token", "-f", "json"]).out.trim_end(), TOKEN);
}

fn prints(format: &str, expected: &str) {
    let ran = token_daemon().run(&["token", "--format", format]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, expected, ""));
}

#[test]
fn token_asks_for_what_was_typed() {
    let daemon = token_daemon();
    daemon.run(&["token"]);
    daemon.run(&["token", "--profile", "a b&c", "--min-ttl", "600", "--wait", "2"]);
    ran(daemon.command(&["token"]).env("WANDB_CRED_PROFILE", "eval"));
    ran(daemon.command(&["token", "-p", "work"]).env("WANDB_CRED_PROFILE", "eval"));
    let asked = [
        "GET /v1/token",
        "GET /v1/token?profile=a%20b%26c&min_ttl=600&wait=2",
        "GET /v1/token?profile=eval",
        "GET /v1/token?profile=work",
    ];
    assert_eq!(daemon.requests(), asked);
}

#[test]
fn without_a_daemon_the_error_names_the_socket_and_the_next_command() {
    let home = tempfile::tempdir().expect("temp dir");
    let socket = home.path().join("run/wandb-cred/wandb-cred.sock");
    for arguments in [&["status"][..], &["lock"]] {
        let ran = ran(&mut bare(home.path(), arguments));
        assert_eq!((ran.code, ran.out.as_str()), (69, ""), "{arguments:?}");
        let starts = "exec, token, env, login and refresh start one when they need it";
        let expected = format!(
            "wandb-cred: no daemon answers at {}; {starts}\n  next: wandb-credd &\n",
            socket.display()
        );
        assert_eq!(ran.err, expected, "{arguments:?}");
    }
    // These would start one.
    for arguments in [&["token"][..], &["env"], &["refresh"], &["exec", "true"]] {
        let ran = ran(&mut bare(home.path(), arguments));
        assert_eq!((ran.code, ran.out.as_str()), (69, ""), "{arguments:?}");
        let expected = format!("wandb-cred: no daemon answers at {}, and cannot run", socket.display());
        assert!(ran.err.starts_with(&expected), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn a_socket_in_a_folder_open_to_others_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = token_daemon();
    let folder = daemon.folder.path().join("run/wandb-cred");
    std::fs::create_dir_all(&folder).expect("made");
    std::os::unix::fs::symlink(daemon.socket(), folder.join("wandb-cred.sock")).expect("linked");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).expect("chmod");
    let refused = ran(&mut bare(daemon.folder.path(), &["token"]));
    // It would start one elsewhere.
    assert_eq!((refused.code, refused.out.as_str()), (69, ""));
    assert_eq!(daemon.requests(), [""; 0]);
    let status = ran(&mut bare(daemon.folder.path(), &["status"]));
    assert_eq!(status.code, 69);
    assert!(status.err.contains("chmod 700"), "{}", status.err);
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("chmod");
    assert_eq!(ran(&mut bare(daemon.folder.path(), &["token"])).out, "wb_at_1\n");
}

#[test]
fn need_fails_at_once_if_the_identity_ends_before() {
    let status = status::answer(&[status::profile(
        "work",
        true,
        r#"{"until":"2020-01-01T00:00:00Z","reason":"the CI job's token ends then"}"#,
    )]);
    let daemon = FakeDaemon::start(vec![on("GET /v1/status", 200, status), on("GET /v1/token", 200, TOKEN)]);
    let ran = daemon.run(&["token", "--need", "72h"]);
    assert_eq!((ran.code, ran.out.as_str()), (78, ""));
    assert!(ran.err.contains("not 3 d: the CI job's token ends then"), "{}", ran.err);
    // A cold daemon knows only after the first exchange how long the identity lasts.
    assert_eq!(daemon.requests(), ["GET /v1/token", "GET /v1/status"]);

    let status = status::answer(&[status::profile("work", true, "null")]);
    let daemon = FakeDaemon::start(vec![on("GET /v1/status", 200, status), on("GET /v1/token", 200, TOKEN)]);
    assert_eq!(daemon.run(&["token", "--need", "72h"]).out, "wb_at_1\n");
    let wrong = daemon.run(&["token", "--need", "soon"]);
    assert_eq!(wrong.code, 64);
    assert!(wrong.err.contains("`soon` is not a duration"), "{}", wrong.err);
}

#[test]
fn wrong_usage_ends_with_64_and_says_where_help_is() {
    let home = tempfile::tempdir().expect("temp dir");
    let unknown = ran(&mut bare(home.path(), &["token", "--frobnicate"]));
    assert_eq!(unknown.code, 64);
    assert!(
        unknown.err.starts_with("wandb-cred: unexpected argument '--frobnicate' found"),
        "{}",
        unknown.err
    );
    assert!(unknown.err.ends_with("  next: wandb-cred token --help\n"), "{}", unknown.err);
    let typo = ran(&mut bare(home.path(), &["tokn"]));
    assert_eq!(typo.code, 64);
    assert!(
        typo.err.contains("'token'") && typo.err.ends_with("  next: wandb-cred --help\n"),
        "{}",
        typo.err
    );
    let nothing = ran(&mut bare(home.path(), &[]));
    assert_eq!((nothing.code, nothing.out.as_str()), (64, ""));
    assert!(nothing.err.contains("Usage: wandb-cred"), "{}", nothing.err);
    for arguments in
        [&["exec"][..], &["service"], &["completions"], &["completions", "tcsh"], &["status", "x"]]
    {
        assert_eq!(ran(&mut bare(home.path(), arguments)).code, 64, "{arguments:?}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let home = tempfile::tempdir().expect("temp dir");
    let help = ran(&mut bare(home.path(), &["--help"]));
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    for name in [
        "token",
        "exec",
        "feed",
        "env",
        "status",
        "refresh",
        "login",
        "logout",
        "lock",
        "unlock",
        "init",
        "check",
        "service",
        "completions",
    ] {
        assert!(help.out.contains(&format!("\n  {name} ")), "{name}: {}", help.out);
        let subcommand = ran(&mut bare(home.path(), &[name, "--help"]));
        assert_eq!(subcommand.code, 0);
        assert!(subcommand.out.lines().all(|line| line.chars().count() <= 105), "{}", subcommand.out);
    }
    assert!(help.out.lines().all(|line| line.chars().count() <= 100), "{}", help.out);
    let version = ran(&mut bare(home.path(), &["--version"]));
    assert_eq!(version.out, concat!("wandb-cred ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_relative_socket_path_is_a_configuration_error() {
    let home = tempfile::tempdir().expect("temp dir");
    let ran = ran(bare(home.path(), &["status"]).env("WANDB_CRED_SOCKET", "here.sock"));
    assert_eq!(ran.code, 78);
    let said = "wandb-cred: WANDB_CRED_SOCKET must be an absolute path, not here.sock\n  next: unset WANDB_CRED_SOCKET\n";
    assert_eq!(ran.err, said);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let daemon = token_daemon();
    let mut command = daemon.command(&["token"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().expect("starts");
    let ran = fake_daemon::of(output.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let daemon = token_daemon();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("exists on Linux");
    let child =
        daemon.command(&["token"]).stdout(full).stderr(std::process::Stdio::piped()).spawn().expect("starts");
    let ran = fake_daemon::of(child.wait_with_output().expect("ends"));
    assert_eq!(ran.code, 74);
    assert!(ran.err.starts_with("wandb-cred: cannot write to standard output: No space left"), "{}", ran.err);
}

#[test]
fn refresh_says_what_came_of_it() {
    let daemon = FakeDaemon::start(vec![on("POST /v1/refresh", 200, status::profile("work", true, "null"))]);
    let ran = daemon.run(&["refresh", "--profile", "work"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "work: renewed, the access token is good for 1 h\n"));
    assert_eq!(daemon.requests(), ["POST /v1/refresh?profile=work"]);
    let json = daemon.run(&["refresh", "--json"]);
    assert!(json.out.starts_with(r#"{"name":"work""#), "{}", json.out);
}

#[test]
fn socket_prints_where_the_daemon_answers() {
    let daemon = FakeDaemon::start(vec![on("GET /v1/status", 200, status::answer(&[]))]);
    let ran = daemon.run(&["socket"]);
    assert_eq!((ran.code, ran.out), (0, format!("{}\n", daemon.socket().display())));
}
