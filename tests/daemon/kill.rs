//! kill -9 at any moment: files stay whole, leftovers go, a restart serves at once; and who may have the socket.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::setup::{DAEMON, Home, Sandbox, now, until};

fn is_jwt(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    parts.len() == 3 && text.starts_with("eyJ") && parts.iter().all(|part| part.len() > 20)
}

/// Both files as a reader finds them: absent or whole.
fn check_files(credentials: &Path, identity: &Path) -> bool {
    if let Ok(text) = fs::read_to_string(credentials) {
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
        let entries = json["credentials"].as_object().expect("entries");
        assert!(!entries.is_empty(), "{text}");
        for entry in entries.values() {
            let token = entry["access_token"].as_str().expect("a token");
            assert!(token.starts_with("wb_at_") && token.len() > 40, "{token:?}");
            assert_eq!(entry["expires_at"].as_str().map(str::len), Some(19), "{text}");
        }
    }
    match fs::read_to_string(identity) {
        Ok(text) => {
            assert!(is_jwt(&text), "{text:?}");
            true
        }
        Err(_) => false,
    }
}

#[test]
fn killed_at_any_moment_no_file_is_ever_partial_and_the_next_one_serves() {
    let rounds = if std::env::var_os("WANDB_CRED_TEST_LONG").is_some() { 1000 } else { 50 };
    let sandbox = Sandbox::start(&["--token-life", "2"]);
    let home = Home::new(&sandbox.profile("work"));
    let (credentials, identity) =
        (home.sdk_file("work", "credentials.json"), home.sdk_file("work", "identity-token"));
    let (over, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let reader = {
        let (over, looks, credentials, identity) =
            (Arc::clone(&over), Arc::clone(&looks), credentials.clone(), identity.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if check_files(&credentials, &identity) {
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_micros(200));
            }
        })
    };
    let mut leftovers = 0;
    for round in 0..rounds {
        let mut daemon = home.daemon();
        if round > 0 {
            until("leftovers are removed", 5, || (count_leftovers(&home) == 0).then_some(()));
        }
        if round % 5 == 0 {
            // Around the renewals of a token that was served.
            let token = daemon.get("/v1/token");
            assert_eq!(token.status, 200, "round {round}: {}", token.text());
            thread::sleep(Duration::from_micros(fastrand::u64(..1_500_000)));
        } else {
            // Around the first writes: nobody waits for the answer.
            let mut stream = UnixStream::connect(&daemon.socket).expect("a connection");
            stream.write_all(b"GET /v1/token HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
            thread::sleep(Duration::from_micros(fastrand::u64(..25_000)));
        }
        daemon.kill();
        leftovers += count_leftovers(&home);
        if round % 10 == 0 && identity.exists() {
            fs::write(home.sdk_file("work", ".writing-planted"), "half").expect("planted");
        }
        check_files(&credentials, &identity);
        assert!(!reader.is_finished(), "a reader saw a partial file");
    }
    over.store(true, Ordering::Relaxed);
    reader.join().expect("no reader saw a partial file");
    let looks = looks.load(Ordering::Relaxed);
    println!("{rounds} kills, {looks} looks at the files, {leftovers} times a kill hit a write");
    assert!(looks > 1000, "only {looks} looks");
}

fn count_leftovers(home: &Home) -> usize {
    let Ok(entries) = fs::read_dir(home.sdk_file("work", "")) else { return 0 };
    entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(".writing-")).count()
}

#[test]
fn after_a_kill_the_last_token_is_served_at_once_with_everything_else_down() {
    let mut sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut daemon = home.daemon();
    let token = daemon.token("");
    until("the files are written", 5, || home.sdk_file("work", "origin").exists().then_some(()));
    daemon.kill();
    sandbox.stop();
    assert!(home.socket().exists(), "a killed daemon leaves its socket behind");
    let start = now();
    let daemon = home.daemon();
    assert_eq!(daemon.token("wait=0"), token);
    println!("served {:?} after the start", now() - start);
    assert!(now() - start < Duration::from_secs(2), "took {:?}", now() - start);
}

#[test]
fn a_token_of_another_configuration_is_not_taken_over() {
    let (first, second) = (Sandbox::start(&[]), Sandbox::start(&[]));
    let home = Home::new(&first.profile("work"));
    let mut daemon = home.daemon();
    let token = daemon.token("");
    until("the files are written", 5, || home.sdk_file("work", "origin").exists().then_some(()));
    daemon.kill();
    home.write_config(&second.profile("work"));
    let daemon = home.daemon();
    assert_ne!(daemon.token(""), token);
    assert_eq!(second.exchanges(), 1);
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    drop(home.daemon());
    fs::remove_file(home.socket()).expect("left behind");
    fs::write(home.socket(), "precious").expect("written");
    let refused = home.refused();
    assert_eq!(refused.code, Some(69), "{}", refused.err);
    let path = home.socket().display().to_string();
    assert!(refused.err.contains(&path) && refused.err.contains("is not a socket"), "{}", refused.err);
    assert_eq!(fs::read_to_string(home.socket()).expect("there"), "precious");
}

#[test]
fn a_second_daemon_refuses_and_names_the_first_which_goes_on() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let token = daemon.token("");
    let refused = home.refused();
    assert_eq!(refused.code, Some(69), "{}", refused.err);
    assert!(refused.err.contains(&format!("process {} (wandb-credd)", daemon.pid())), "{}", refused.err);
    assert_eq!(daemon.token(""), token);
}

#[test]
fn of_many_that_start_at_once_exactly_one_serves() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let start = || {
        let mut command = home.program(DAEMON, &["run"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    };
    let mut daemons: Vec<_> = (0..8).map(|_| start()).collect();
    let ended = |daemons: &mut Vec<std::process::Child>| {
        daemons.iter_mut().filter_map(|daemon| daemon.try_wait().expect("a child")).collect::<Vec<_>>()
    };
    let ends = until("all but one give up", 20, || {
        let ends = ended(&mut daemons);
        (ends.len() >= 7).then_some(ends)
    });
    let served = home.run(&["token"]);
    let left = ended(&mut daemons).len();
    for daemon in &mut daemons {
        let _ = daemon.kill();
        let _ = daemon.wait();
    }
    assert!(ends.iter().all(|end| end.code() == Some(69)), "{ends:?}");
    assert_eq!((served.code, left), (Some(0), 7), "{}", served.err);
}

#[test]
fn a_daemon_started_after_a_kill_keeps_the_files_of_running_jobs_fresh() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut daemon = home.daemon();
    let mut job = std::process::Command::new("sleep").arg("600").spawn().expect("starts");
    let body = format!("{{\"pid\":{}}}", job.id());
    assert_eq!(daemon.ask("POST", "/v1/jobs", &body).expect("answered").status, 200);
    let record = home.path("run/jobs.json");
    assert_eq!(record.metadata().expect("recorded").permissions().mode() & 0o777, 0o600);
    for _ in 0..3 {
        daemon.kill();
        daemon = home.daemon();
        assert_eq!(daemon.profile("work")["jobs"], 1, "{}", daemon.profile("work"));
    }
    assert_eq!(daemon.profile("work")["hot"], true, "{}", daemon.profile("work"));
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    until("the job is over", 10, || (daemon.profile("work")["jobs"] == 0).then_some(()));
    daemon.kill();
    daemon = home.daemon();
    assert_eq!(daemon.profile("work")["jobs"], 0);
}

#[test]
fn a_record_of_jobs_that_do_not_run_here_is_ignored() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut daemon = home.daemon();
    let body = format!("{{\"pid\":{}}}", std::process::id());
    assert_eq!(daemon.ask("POST", "/v1/jobs", &body).expect("answered").status, 200);
    daemon.kill();
    let record = fs::read_to_string(home.path("run/jobs.json")).expect("recorded");
    let json: Value = serde_json::from_str(&record).expect("json");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut json = json.clone();
        change(&mut json);
        home.write("run/jobs.json", &json.to_string());
        home.daemon().profile("work")["jobs"].clone()
    };
    assert_eq!(with(&|_| {}), 1);
    assert_eq!(with(&|json| json["system"] = "another boot".into()), 0);
    assert_eq!(with(&|json| json["jobs"][0]["start"] = 1.into()), 0, "another process of that number");
    assert_eq!(with(&|json| json["jobs"][0]["profile"] = "gone".into()), 0);
    assert_eq!(with(&|json| *json = "nonsense".into()), 0);
    // What a later version might write.
    assert_eq!(with(&|json| json["new"] = 1.into()), 1);
    assert_eq!(with(&|json| json["jobs"][0]["new"] = 1.into()), 1);
    assert_eq!(with(&|json| json["jobs"][0]["by"] = "a-later-origin".into()), 1);
    let other =
        |json: &mut Value| json["jobs"].as_array_mut().expect("a list").insert(0, "another kind".into());
    assert_eq!(with(&other), 1, "one entry that cannot be read costs no other");
}

#[test]
fn a_restart_costs_no_exchange_while_the_token_has_life_left() {
    let sandbox = Sandbox::start(&["--token-life", "3600"]);
    let home = Home::new(&sandbox.profile("work").replace("audience", "keep-warm = true\naudience"));
    let mut daemon = home.daemon();
    let token = daemon.token("");
    until("the files are written", 5, || home.sdk_file("work", "origin").exists().then_some(()));
    let before = sandbox.control().stats();
    let job = format!("{{\"pid\":{}}}", std::process::id());
    for _ in 0..4 {
        daemon.kill();
        daemon = home.daemon();
        assert_eq!(daemon.token(""), token);
        assert_eq!(daemon.ask("POST", "/v1/jobs", &job).expect("answered").status, 200);
    }
    // What a renewal would begin with is under way within a moment.
    let due = daemon.profile("work");
    let after = sandbox.control().stats();
    assert_eq!(
        (&after["exchanges"]["total"], &after["mints"]),
        (&before["exchanges"]["total"], &before["mints"]),
        "{due}"
    );
    assert_eq!(daemon.profile("work")["access"]["state"], "fresh");
}
