//! The audit log: who got a token.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::foreign::{daemon_in_the_open, stranger_runs};
use crate::loopback_proxy::Sleeper;
use crate::loopback_proxy::client::ask;
use crate::setup::{COMMAND, DAEMON, Home, Sandbox, is_root, ran, until};
use crate::talk::Client;

fn with_audit_log(home: &Home, rest: &str) {
    home.write_config(&format!("audit-log = \"{}\"\n{rest}", home.path("audit").display()));
}

fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// The records of a route, once there are that many.
fn records_of(home: &Home, route: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} records of {route}"), 10, || {
        let mut found = records(&home.path("audit"));
        found.retain(|record| record["route"] == route);
        (found.len() >= count).then_some(found)
    })
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("starts")
}

#[test]
fn each_caller_is_recorded_with_what_it_is() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let identity = "serve-identity-token = true\naudience";
    with_audit_log(&home, &sandbox.profile("work").replacen("audience", identity, 1));
    let daemon = home.daemon();
    let access = daemon.token("");

    let url = "http://localhost/v1/token";
    let mut curl = Command::new("curl");
    curl.arg("-s")
        .arg("--unix-socket")
        .arg(home.socket())
        .arg(url)
        .env("SLURM_JOB_ID", "42")
        .env("SLURM_STEP_ID", "3");
    for _ in 0..20 {
        let child = spawn(&mut curl);
        let pid = child.id();
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success());
        let record = until("the record", 10, || {
            records(&home.path("audit")).into_iter().find(|record| record["pid"] == pid)
        });
        assert_eq!((&record["command"], &record["profile"]), (&"curl".into(), &"work".into()), "{record}");
        assert!(record["executable"].as_str().expect("text").ends_with("/curl"), "{record}");
        let job = ["scheduler", "job", "step"].map(|name| record[name].as_str().expect("text").to_owned());
        assert_eq!(job, ["slurm", "42", "3"]);
        assert_eq!(record["uid"], rustix::process::geteuid().as_raw());
        assert!(record["cgroup"].is_string() && record["time"].is_string(), "{record}");
    }

    let job = spawn(&mut home.program(COMMAND, &["exec", "--", "true"]));
    let pid = job.id();
    assert!(job.wait_with_output().expect("ends").status.success());
    let record = &records_of(&home, "/v1/jobs", 1)[0];
    assert_eq!((&record["pid"], &record["command"]), (&pid.into(), &"wandb-cred".into()));
    let shell = spawn(home.program("sh", &["-c", "$0 env >/dev/null", COMMAND]).env("X", "1"));
    let pid = shell.id();
    assert!(shell.wait_with_output().expect("ends").status.success());
    let record = &records_of(&home, "/v1/jobs", 2)[1];
    assert_eq!(record["job_pid"], pid, "{record}");

    assert_eq!(daemon.get("/v1/identity-token").status, 200);
    assert_eq!(records_of(&home, "/v1/identity-token", 1).len(), 1);
    let first = records_of(&home, "/v1/token", 1)[0]["token"].clone();
    assert_eq!(first, record["token"], "the same token has the same name");
    assert_ne!(first, records_of(&home, "/v1/identity-token", 1)[0]["token"]);
    let written = &records_of(&home, "sdk-files", 1)[0];
    assert_eq!((&written["token"], &written["pid"]), (&first, &Value::Null));
    assert_eq!(daemon.ask("POST", "/v1/refresh", "").expect("an answer").status, 200);
    assert_ne!(records_of(&home, "sdk-files", 2)[1]["token"], first);

    let before = records_of(&home, "/v1/token", 1).len();
    assert_eq!(daemon.ask("HEAD", "/v1/token", "").expect("an answer").status, 200);
    assert_ne!(daemon.get("/v1/token?profile=nobody").status, 200);
    daemon.token("");
    assert_eq!(records_of(&home, "/v1/token", before + 1).len(), before + 1, "nobody else got one");

    let text = fs::read_to_string(home.path("audit")).expect("there");
    assert!(!text.contains(&access[6..]), "a token is in the audit log");
    let mode = home.path("audit").metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn another_user_is_recorded_by_number() {
    if !is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    with_audit_log(&home, &format!("allow-uids = [65534]\n{}", sandbox.profile("work")));
    let _daemon = daemon_in_the_open(&home);
    assert_eq!(stranger_runs(&home, &["token"]).code, Some(0));
    let record = &records_of(&home, "/v1/token", 1)[0];
    assert_eq!((&record["uid"], &record["gid"]), (&65534.into(), &65534.into()), "{record}");
    assert_eq!(record["command"], "wandb-cred");
    assert_eq!(stranger_runs(&home, &["status"]).code, Some(69));
    assert_eq!(records_of(&home, "/v1/token", 1).len(), 1);
}

#[tokio::test]
async fn two_thousand_requests_are_all_there() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    with_audit_log(&home, &sandbox.profile("work"));
    let mut daemon = home.daemon();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = Client::new(&daemon.socket);
        callers.spawn(async move {
            for _ in 0..100 {
                assert_eq!(client.get("/v1/token").await.expect("an answer").status, 200);
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.expect("no panic");
    }
    daemon.signal(Signal::TERM);
    assert!(daemon.ended(10).success());
    let found = records(&home.path("audit"));
    assert_eq!(found.iter().filter(|record| record["route"] == "/v1/token").count(), 2000);
}

#[test]
fn a_full_disk_is_counted_and_stops_nobody() {
    if !is_root() {
        println!("skipped: a small file system needs root");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let small = home.path("small");
    fs::create_dir(&small).expect("made");
    home.write_config(&format!("audit-log = \"{}/audit\"\n{}", small.display(), sandbox.profile("work")));
    // In a mount namespace of its own, so that nothing is left behind.
    let script = "mount -t tmpfs -o size=16k,mode=0700 tmpfs \"$1\" && exec \"$2\" run";
    let arguments = ["-m", "sh", "-c", script, "sh", small.to_str().expect("text"), DAEMON];
    if ran(&mut home.program("unshare", &["-m", "true"])).code != Some(0) {
        println!("skipped: unshare(1) cannot make a mount namespace here");
        return;
    }
    let daemon = home.daemon_of(&mut home.program("unshare", &arguments));
    let inside = Path::new("/proc")
        .join(daemon.pid().to_string())
        .join("root")
        .join(small.strip_prefix("/").expect("absolute"));
    let first = daemon.token("");
    for _ in 0..300 {
        assert_eq!(daemon.token(""), first);
    }
    until("it is said", 10, || daemon.log().contains("the audit log cannot be written").then_some(()));
    assert!(daemon.metric("wandb_cred_audit_records_total") < 300.0);
    // What was waiting is written once there is room.
    let before = fs::read(inside.join("audit")).expect("there").len();
    until("the rest is written", 20, || {
        if fs::read(inside.join("audit")).expect("there").len() >= 8192 {
            fs::write(inside.join("audit"), "").expect("made room");
        }
        daemon.log().contains("can be written again").then_some(())
    });
    assert_eq!(daemon.metric("wandb_cred_audit_lost_total"), 0.0);
    assert!(before >= 8192, "{before}");
    assert_eq!(daemon.token(""), first);
}

#[test]
fn what_cannot_be_an_audit_log_is_said_and_a_reload_mends_it() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    with_audit_log(&home, &sandbox.profile("work"));
    fs::write(home.path("audit"), "").expect("written");
    fs::set_permissions(home.path("audit"), fs::Permissions::from_mode(0o644)).expect("chmod");
    let daemon = home.daemon();
    daemon.token("");
    until("it is said", 10, || daemon.log().contains("chmod 600").then_some(()));
    assert!(records(&home.path("audit")).is_empty());
    home.write_config(&format!(
        "audit-log = \"{}\"\n{}",
        home.path("other").display(),
        sandbox.profile("work")
    ));
    daemon.signal(Signal::HUP);
    until("the log is there", 10, || home.path("other").exists().then_some(()));
    daemon.token("");
    until("the record", 10, || (!records(&home.path("other")).is_empty()).then_some(()));
    home.write_config(&sandbox.profile("work"));
    daemon.signal(Signal::HUP);
    let writers = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs").flatten();
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        tasks.map(name).filter(|name| name.starts_with("audit-")).count()
    };
    until("its threads end", 10, || (writers() == 0).then_some(()));

    home.write_config(&format!("audit-log = \"here\"\n{}", sandbox.profile("work")));
    let checked = ran(&mut home.program(DAEMON, &["check"]));
    assert_eq!(checked.code, Some(78));
    assert!(checked.err.contains(":1:") && checked.err.contains("absolute path"), "{}", checked.err);
}

#[test]
fn a_job_of_the_proxy_is_recorded_by_token_and_at_its_end() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    with_audit_log(&home, &sandbox.profile("work"));
    let daemon = home.daemon();
    let job = Sleeper::start();
    let proxy = ask(&daemon, job.pid());
    let viewer = || proxy.post("/graphql", &[], br#"{"query":"query Viewer { viewer { id } }"}"#).status;
    for _ in 0..20 {
        assert_eq!(viewer(), 200);
    }
    let first = records_of(&home, "proxy", 1);
    assert_eq!(first.len(), 1, "one record, however many requests");
    assert_eq!((&first[0]["pid"], &first[0]["command"]), (&job.pid().into(), &"sleep".into()), "{first:?}");
    assert_eq!(first[0]["uid"], rustix::process::geteuid().as_raw());
    assert_eq!(records_of(&home, "/v1/jobs", 1)[0]["token"], Value::Null, "it was given a key, not a token");
    assert_eq!(daemon.ask("POST", "/v1/refresh", "").expect("an answer").status, 200);
    assert_eq!(viewer(), 200);
    let second = &records_of(&home, "proxy", 2)[1];
    assert!(second["token"].is_string() && second["token"] != first[0]["token"], "{second}");
    let pid = job.pid();
    drop(job);
    let last = &records_of(&home, "proxy", 3)[2];
    assert_eq!((&last["pid"], &last["requests"]), (&pid.into(), &21.into()), "{last}");
    assert!(last["bytes_sent"].as_u64() > Some(0) && last["bytes_received"].as_u64() > Some(0), "{last}");
    let text = fs::read_to_string(home.path("audit")).expect("there");
    assert!(!text.contains(&proxy.key), "a key is in the audit log");
}
