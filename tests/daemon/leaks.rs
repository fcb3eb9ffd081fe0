//! The whole flow and each error path at the loudest log level, with planted secrets: none is anywhere but in
//! the two SDK files. And what the process does against being looked into.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::setup::{DAEMON, Daemon, Home, SANDBOX, Sandbox, is_root, ran, until};

const COMMAND_SECRET: &str = "pL4nted-c0mmand-Secret-5f2a9c";

/// What must not be seen, by name.
#[derive(Default)]
struct Secrets(BTreeMap<String, String>);

impl Secrets {
    fn plant(&mut self, name: &str, secret: &str) {
        assert!(secret.len() > 15, "{name} is too short to be looked for");
        self.0.insert(name.to_owned(), secret.to_owned());
    }

    /// Whole, and its telling parts.
    fn plant_jwt(&mut self, name: &str, jwt: &str) {
        let parts: Vec<_> = jwt.split('.').collect();
        self.plant(&format!("{name} payload"), parts[1]);
        self.plant(&format!("{name} signature"), parts[2]);
    }

    fn check(&self, place: &str, text: &str) {
        for (name, secret) in &self.0 {
            assert!(!text.contains(secret.as_str()), "{name} is in {place}");
            // Cut short is still too much.
            assert!(!text.contains(&secret[..16]), "the beginning of {name} is in {place}");
        }
    }
}

/// Every file below `folder`.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let kind = entry.file_type().expect("known");
        if kind.is_dir() {
            files(&entry.path(), into);
        } else if kind.is_file() {
            into.push(entry.path());
        }
    }
}

/// Everything that the daemon shows to anybody. Forced renewals too, of which there is one in five seconds.
fn check_all(secrets: &Secrets, home: &Home, daemon: &Daemon) {
    check(secrets, home, daemon);
    let ran = home.run(&["refresh"]);
    secrets.check("wandb-cred refresh", &format!("{}{}", ran.out, ran.err));
    secrets.check("the log", &daemon.log());
}

/// The same without forcing anything.
fn check(secrets: &Secrets, home: &Home, daemon: &Daemon) {
    secrets.check("the log", &daemon.log());
    secrets.check("the arguments", &daemon.proc("cmdline"));
    secrets.check("the environment", &daemon.proc("environ"));
    for target in
        ["/metrics", "/v1/status?jobs=true", "/v1/profiles", "/readyz", "/v1/identity-token", "/nowhere"]
    {
        let answer = daemon.get(target);
        secrets.check(target, &format!("{}\n{}", answer.head, answer.text()));
    }
    for arguments in [&["status"][..], &["status", "--jobs", "--json"], &["env"]] {
        let ran = home.run(arguments);
        secrets.check(&format!("wandb-cred {arguments:?}"), &format!("{}{}", ran.out, ran.err));
    }
    let checked = ran(&mut home.program(DAEMON, &["check"]));
    secrets.check("wandb-credd check", &format!("{}{}", checked.out, checked.err));
    let mut found = Vec::new();
    files(&home.path(""), &mut found);
    for path in found {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        // One that is just being written, to be renamed.
        let written = name.strip_prefix(".writing-").and_then(|name| name.rsplit_once('-'));
        let name = written.map_or(name.as_str(), |(name, _)| name);
        // The two files that are for the SDK, and what this test itself planted.
        if !["credentials.json", "identity-token", "jwt", "provider", "config.toml"].contains(&name) {
            let content = fs::read(&path).unwrap_or_default();
            secrets.check(&path.display().to_string(), &String::from_utf8_lossy(&content));
        }
    }
}

#[test]
fn no_secret_is_anywhere_but_in_the_sdk_files_with_a_log_as_text() {
    no_secret_leaks("text");
}

#[test]
fn no_secret_is_anywhere_but_in_the_sdk_files_with_a_log_as_json() {
    no_secret_leaks("json");
}

fn no_secret_leaks(format: &str) {
    let sandbox = Sandbox::start(&["--token-life", "8"]);
    let control = sandbox.control();
    let mut secrets = Secrets::default();
    secrets.plant("the command's variable", COMMAND_SECRET);
    let home = Home::new("");
    let jwt = home.write("jwt", &control.mint(""));
    secrets.plant_jwt("the identity token", &fs::read_to_string(&jwt).expect("minted"));
    let stranger = control.mint("audience=other");
    secrets.plant_jwt("a JWT on standard error", &stranger);
    let minting = format!("exec {SANDBOX} mint --url {}", sandbox.url);
    let script = home.write("provider", &minting);
    let config = format!(
        "{}[profile.run]\nbase-url = \"{}\"\n[profile.run.provider.command]\n\
             argv = [\"/bin/sh\", \"{}\"]\n[profile.run.provider.command.env]\nPLANTED = \"{COMMAND_SECRET}\"\n",
        sandbox.file_profile("work", &jwt),
        sandbox.url,
        script.display()
    );
    let audit = home.path("audit").display().to_string();
    let audit = format!("audit-log = \"{audit}\"\nmetrics-textfile = \"{audit}.prom\"\n");
    let config = format!("{audit}{config}");
    home.write_config(&format!("default-profile = \"work\"\n{config}"));
    let arguments = ["run", "--log-format", format, "--log-level", "trace"];
    let daemon = home.daemon_of(&mut home.program(DAEMON, &arguments));

    // The good way.
    for profile in ["work", "run"] {
        secrets.plant("the access token", &daemon.token(&format!("profile={profile}"))[6..]);
        let job = home.run(&["exec", "--profile", profile, "--", "/bin/sh", "-c", "env"]);
        assert_eq!(job.code, Some(0), "{}", job.err);
        secrets.check("a job's environment", &job.out);
        let path = home.sdk_file(profile, "identity-token");
        secrets.plant_jwt(&format!("the token of {profile}"), &fs::read_to_string(path).expect("written"));
    }
    check_all(&secrets, &home, &daemon);

    // The bad ways, each by a profile of its own that looks for the first time. What upstream says repeats
    // what it was sent.
    let assertion = fs::read_to_string(&jwt).expect("there");
    let echo = json!({ "error": "invalid_grant", "error_description": format!("bad assertion {assertion}") });
    for (number, fault) in [
        json!({ "status": 400, "body": echo.to_string() }),
        json!({ "status": 400, "body": format!("invalid JWT format: assertion={assertion}&x=1") }),
        json!({ "status": 400, "body": format!("{{\"error\":\"{assertion}\"}}") }),
        json!({ "status": 500, "body": format!("<html>Bearer {assertion}</html>") }),
        json!({ "status": 302, "headers": { "Location": format!("http://x.example/?t={assertion}") } }),
        json!({ "status": 200, "body": format!("{{\"access_token\":\"{assertion}\\n\"}}") }),
    ]
    .iter()
    .enumerate()
    {
        control.faults(&json!({ "exchange": fault }));
        fail(&home, &daemon, &config, "work", &format!("exchange-{number}"), &secrets);
    }
    control.faults(&json!({}));
    for (number, bad) in [
        format!("echo 'no session for {stranger}' >&2; exit 1"),
        format!("echo 'token={stranger}' >&2; echo $PLANTED >&2; exit 1"),
        format!("echo '{{\"error\":\"{stranger}\"}}'"),
        format!("echo '{stranger} and more'"),
        format!("echo '{}'", &stranger[..stranger.len() / 2]),
    ]
    .iter()
    .enumerate()
    {
        home.write("provider", bad);
        fail(&home, &daemon, &config, "run", &format!("command-{number}"), &secrets);
    }
    check_all(&secrets, &home, &daemon);
    let failures = daemon.log().matches("renewal failed").count();
    assert!(failures >= 11, "only {failures} failures were logged");
    // A reload while it fails, with a mistake beside a secret.
    home.write_config(&format!("{config}broken = 1\n"));
    daemon.signal(rustix::process::Signal::HUP);
    until("the daemon says no", 10, || daemon.log().contains("the new configuration is wrong").then_some(()));
    secrets.check("the log", &daemon.log());
}

/// Lets a new profile like `model` look, and fail in every way it is told.
fn fail(home: &Home, daemon: &Daemon, config: &str, model: &str, name: &str, secrets: &Secrets) {
    let start = config.find(&format!("[profile.{model}]")).expect("the model");
    let end = config[start + 1..].find("[profile.run]\n").map_or(config.len(), |end| start + 1 + end);
    let copy = config[start..end].replace(&format!("profile.{model}"), &format!("profile.{name}"));
    home.write_config(&format!("default-profile = \"work\"\n{config}{copy}"));
    daemon.signal(rustix::process::Signal::HUP);
    until("the profile is there", 10, || {
        daemon.get("/v1/status").text().contains(&format!("\"{name}\"")).then_some(())
    });
    let answer = daemon.get(&format!("/v1/token?profile={name}&wait=1"));
    assert_ne!(answer.status, 200, "{name}: {}", answer.text());
    secrets.check("a refusal", &answer.text());
    let told = home.run(&["token", "--profile", name, "--wait", "1"]);
    secrets.check("the command's error", &format!("{}{}", told.out, told.err));
    check(secrets, home, daemon);
}

#[test]
fn the_two_files_are_private_and_in_a_private_folder() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    daemon.token("");
    until("the files are written", 5, || home.sdk_file("work", "origin").exists().then_some(()));
    for name in ["credentials.json", "identity-token", "origin"] {
        let mode = fs::metadata(home.sdk_file("work", name)).expect("there").mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    for name in ["run", "run/profiles", "run/profiles/work"] {
        assert_eq!(fs::metadata(home.path(name)).expect("there").mode() & 0o7777, 0o700, "{name}");
    }
    assert_eq!(fs::metadata(home.socket()).expect("there").mode() & 0o077, 0, "the socket");
    let jwt = fs::read_to_string(home.sdk_file("work", "identity-token")).expect("there");
    assert_eq!(jwt.trim(), jwt, "SDKs up to 0.28.0 send white space along");
}

#[test]
fn the_daemon_leaves_no_core_and_cannot_be_looked_into() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut command = home.program(DAEMON, &["run"]);
    if is_root() {
        // Only another user than root can tell: to root everything is open. The daemon needs its own copy and
        // home there.
        let program = home.copy_of(DAEMON);
        command = home.program(program.to_str().expect("text"), &["run"]);
        for path in [home.path(""), home.config()] {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("chown");
        }
        command.uid(65534).gid(65534).current_dir("/");
    }
    let daemon = home.daemon_of(&mut command);
    let limits = daemon.proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth_back(2), Some("0"), "{core}");
    // The files of a process that is not dumpable belong to root, and its own user may not trace it.
    let owner = fs::metadata(format!("/proc/{}/environ", daemon.pid())).expect("there").uid();
    assert_eq!(owner, 0, "the daemon is dumpable");
    let status = daemon.proc("status");
    assert!(
        status.lines().any(|line| line.starts_with("Uid:") && !line.starts_with("Uid:\t0\t")),
        "{status}"
    );
}
