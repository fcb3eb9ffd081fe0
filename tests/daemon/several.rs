//! A job that uses several profiles: a token for each server, and no JWT for any.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::setup::{COMMAND, Daemon, Home, Sandbox, until};

const BOTH: [&str; 5] = ["exec", "--profile", "a", "--profile", "b"];

fn folder(home: &Home) -> PathBuf {
    home.path("run/profiles/a+b")
}

fn credentials(folder: &Path) -> Value {
    let json = fs::read(folder.join("credentials.json")).expect("there");
    serde_json::from_slice(&json).expect("JSON")
}

/// The token in the file for this server.
fn token(folder: &Path, sandbox: &Sandbox) -> String {
    let token = &credentials(folder)["credentials"][&sandbox.url]["access_token"];
    token.as_str().expect("an entry").to_owned()
}

fn home(a: &Sandbox, b: &Sandbox) -> Home {
    Home::new(&format!("default-profile = \"b\"\n{}{}", a.profile("a"), b.profile("b")))
}

/// A job that stays until its standard input is closed.
fn job(home: &Home) -> Child {
    let arguments = [&BOTH[..], &["--", "cat"]].concat();
    let mut command = home.program(COMMAND, &arguments);
    command.stdin(Stdio::piped()).spawn().expect("starts")
}

fn jobs(daemon: &Daemon) -> [Value; 2] {
    ["a", "b"].map(|name| daemon.profile(name)["jobs"].clone())
}

#[test]
fn one_pair_of_files_serves_two_servers_and_shows_neither_a_jwt() {
    let (a, b) = (Sandbox::start(&[]), Sandbox::start(&[]));
    let home = home(&a, &b);
    let daemon = home.daemon();
    let script = format!(
        "echo $WANDB_BASE_URL; cat \"$WANDB_IDENTITY_TOKEN_FILE\"; echo; echo $WANDB_CREDENTIALS_FILE; \
         {COMMAND} token; {COMMAND} exec -- sh -c 'echo $WANDB_CREDENTIALS_FILE'; {COMMAND} exec -p b -- sh -c \
         'echo $WANDB_BASE_URL'"
    );
    let ran = home.run(&[&BOTH[..], &["--need", "1m", "--", "sh", "-c", &script]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let (of_a, of_b) = (token(&folder(&home), &a), token(&folder(&home), &b));
    let file = folder(&home).join("credentials.json").display().to_string();
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines, [a.url.as_str(), "relay", &file, &of_a, &file, &b.url]);
    assert_eq!(credentials(&folder(&home))["credentials"].as_object().expect("keys").len(), 2);
    assert_eq!((a.control().takes(&of_a), b.control().takes(&of_b)), (Some(true), Some(true)));
    assert_eq!((a.exchanges(), b.exchanges()), (1, 1));
    for entry in fs::read_dir(folder(&home)).expect("there").flatten() {
        let text = fs::read_to_string(entry.path()).expect("text");
        assert!(!text.contains("eyJ"), "a JWT in {}", entry.path().display());
    }
    let shell = home.run(&["env", "-p", "a", "-p", "b"]);
    assert!(shell.out.contains("profiles/a+b/credentials.json"), "{}", shell.out);
    until("the jobs have ended", 10, || (daemon.profile("b")["jobs"] == 1).then_some(()));
}

#[test]
fn each_renewal_reaches_the_files_and_a_job_keeps_both_hot() {
    let (a, b) = (Sandbox::start(&[]), Sandbox::start(&[]));
    let home = home(&a, &b);
    let mut daemon = home.daemon();
    let mut running = job(&home);
    let files = folder(&home);
    let entries = || credentials(&files)["credentials"].as_object().map(serde_json::Map::len);
    until("the files", 20, || (files.join("identity-token").exists() && entries() == Some(2)).then_some(()));
    assert_eq!(jobs(&daemon), [1, 1]);
    let before = (token(&files, &a), token(&files, &b));
    assert_eq!(daemon.ask("POST", "/v1/refresh?profile=b", "").expect("an answer").status, 200);
    until("the new token", 10, || (token(&files, &b) != before.1).then_some(()));
    assert_eq!(token(&files, &a), before.0);
    // What another program does to them is undone.
    fs::write(files.join("identity-token"), "something").expect("written");
    fs::remove_file(files.join("credentials.json")).expect("removed");
    until("they are back", 10, || {
        let relay = fs::read_to_string(files.join("identity-token")).is_ok_and(|text| text == "relay");
        (relay && files.join("credentials.json").exists()).then_some(())
    });

    // A restarted daemon and a reload go on with it.
    daemon.signal(Signal::TERM);
    assert!(daemon.ended(10).success());
    let mut daemon = home.daemon();
    assert_eq!(jobs(&daemon), [1, 1]);
    home.write_config(&format!(
        "{}{}",
        a.profile("a"),
        b.profile("b").replace("audience", "keep-warm = true\naudience")
    ));
    daemon.signal(Signal::HUP);
    until("the configuration", 10, || daemon.log().contains("configuration reloaded").then_some(()));
    let before = token(&files, &b);
    until("the new profile's token", 20, || {
        daemon.ask("POST", "/v1/refresh?profile=b", "").expect("an answer");
        (files.join("credentials.json").exists() && token(&files, &b) != before).then_some(())
    });
    assert_eq!(jobs(&daemon), [1, 1]);
    drop(running.stdin.take());
    assert!(running.wait().expect("ends").success());
    until("both are free", 10, || (jobs(&daemon) == [0, 0]).then_some(()));
    daemon.kill();
}

#[test]
fn what_cannot_be_kept_apart_or_fresh_is_refused() {
    let (a, b) = (Sandbox::start(&[]), Sandbox::start(&["--token-life", "200"]));
    let home = home(&a, &b);
    home.write_config(&format!("{}{}{}", a.profile("a"), b.profile("b"), a.profile("same")));
    let _daemon = home.daemon();
    let exec = |second: &str| home.run(&["exec", "-p", "a", "-p", second, "--", "echo", "ran"]);
    for (second, words) in [
        ("same", "both of"),
        ("a", "both of"),
        ("b", "more than 300 s"),
        ("nobody", "there is no profile `nobody`"),
    ] {
        let refused = exec(second);
        assert_eq!(refused.out, "", "{second}");
        assert!(refused.code.is_some_and(|code| code > 63), "{second}: {:?}", refused.code);
        assert!(refused.err.contains(words), "{second}: {}", refused.err);
    }
    assert!(
        !folder(&home).join("identity-token").exists()
            || fs::read(folder(&home).join("identity-token")).expect("read") == b"relay"
    );
}
