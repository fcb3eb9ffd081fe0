//! Who gets a key, for how long, and in which variables.

use std::os::unix::fs::PermissionsExt as _;

use super::Sleeper;
use super::client::World;
use crate::setup::{COMMAND, DAEMON, Home, Sandbox, ran, until};
use rustix::process::Signal;

#[test]
fn a_key_dies_with_its_job() {
    let world = World::new();
    let job = Sleeper::start();
    let proxy = world.job(job.pid());
    assert_ne!(proxy.key, world.proxy.key);
    assert_eq!((proxy.port, proxy.get("/x").status), (world.proxy.port, 200));
    drop(job);
    until("the key is refused", 10, || {
        let refused = proxy.get("/x");
        (refused.status == 401)
            .then(|| assert!(refused.message().contains("has ended"), "{}", refused.text()))
    });
    assert_eq!(world.proxy.get("/x").status, 200, "another job goes on");
}

#[test]
fn a_daemon_that_is_killed_comes_back_with_port_and_keys() {
    let mut world = World::new();
    let job = Sleeper::start();
    let (proxy, gone) = (world.job(job.pid()), world.job(Sleeper::start().pid()));
    let record = world.home.path("run/proxy.json");
    assert_eq!(record.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&record).expect("text");
    assert!(!text.contains(&proxy.key) && text.contains("key_sha256"), "{text}");
    for _ in 0..2 {
        world.daemon.kill();
        world.daemon = world.home.daemon();
        until("the key is good again", 10, || {
            let stream = std::net::TcpStream::connect(proxy.host()).is_ok();
            (stream && proxy.post("/echo", &[], b"row").text() == "row").then_some(())
        });
    }
    assert_eq!(world.job(job.pid()).port, proxy.port);
    assert_eq!(gone.get("/x").status, 401, "its job ended meanwhile");
    drop(job);
}

#[test]
fn a_port_that_another_program_took_is_taken_back_when_it_is_free() {
    let mut world = World::new();
    world.daemon.kill();
    let squatter = std::net::TcpListener::bind(world.proxy.host()).expect("free now");
    world.daemon = world.home.daemon();
    let proxy = world.daemon.get("/v1/status").json()["proxy"].clone();
    assert_eq!(proxy["listening"], false, "{proxy}");
    drop(squatter);
    until("it listens again", 10, || {
        std::net::TcpStream::connect(world.proxy.host()).ok()?;
        (world.proxy.get("/x").status == 200).then_some(())
    });
}

#[test]
fn a_reload_changes_where_the_requests_of_running_jobs_go() {
    let world = World::new();
    let other = super::server::Server::start();
    let config = std::fs::read_to_string(world.home.config()).expect("text");
    world.home.write_config(&config.replace(&world.server.url, &other.url));
    world.daemon.signal(Signal::HUP);
    until("the other server is asked", 10, || {
        world.proxy.post("/x", &[], b"row");
        (!other.seen().is_empty()).then_some(())
    });
}

/// What a command sees of the variables that concern W&B.
const SHOW: &str = "env | grep -E '^(WANDB_|WF_|NO_PROXY|no_proxy)' | sort";

fn shown(home: &Home, arguments: &[&str], env: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut command = home.program(COMMAND, arguments);
    let done = ran(command.envs(env.iter().copied()));
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.err, "", "exec says nothing");
    let variables = done.out.lines().filter_map(|line| line.split_once('='));
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn exec_and_a_profile_hand_out_the_proxy_and_no_identity() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let _daemon = home.daemon();
    let before =
        [("WANDB_IDENTITY_TOKEN_FILE", "/x"), ("WANDB_API_KEY", "mine"), ("NO_PROXY", "corp.example")];
    let by_flag = shown(&home, &["exec", "--proxy", "--", "sh", "-c", SHOW], &before);
    let get = |variables: &[(String, String)], wanted: &str| {
        variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
    };
    let url = get(&by_flag, "WANDB_BASE_URL").expect("set");
    assert!(url.starts_with("http://127.0.0.1:") && url != sandbox.url, "{url}");
    let key = get(&by_flag, "WANDB_API_KEY").expect("set");
    assert!(key.len() == 40 && key != "mine");
    assert_eq!(get(&by_flag, "WANDB_APP_URL").as_deref(), Some(sandbox.url.as_str()));
    assert_eq!(get(&by_flag, "WF_TRACE_SERVER_URL"), Some(format!("{url}/traces")));
    for name in ["NO_PROXY", "no_proxy"] {
        assert_eq!(get(&by_flag, name).as_deref(), Some("corp.example,127.0.0.1,localhost"), "{name}");
    }
    for name in ["WANDB_IDENTITY_TOKEN_FILE", "WANDB_CREDENTIALS_FILE"] {
        assert_eq!(get(&by_flag, name), None);
    }
    let by_default = shown(&home, &["exec", "--", "sh", "-c", SHOW], &before);
    assert_eq!(get(&by_default, "WANDB_API_KEY"), None);
    assert!(get(&by_default, "WANDB_IDENTITY_TOKEN_FILE").is_some());
    // A job by files inside one by the proxy has nothing of the proxy left.
    let nested = format!("{COMMAND} exec -- sh -c \"{SHOW}\"");
    let nested = shown(&home, &["exec", "--proxy", "--", "sh", "-c", &nested], &[]);
    assert_eq!((get(&nested, "WANDB_API_KEY"), get(&nested, "WF_TRACE_SERVER_URL")), (None, None));
    assert_eq!(get(&nested, "WANDB_BASE_URL").as_deref(), Some(sandbox.url.as_str()));
    let printed = home.run(&["env", "--proxy", "--pid", &std::process::id().to_string()]);
    assert!(
        printed.out.contains("WANDB_API_KEY=") && printed.out.contains("unset WANDB_IDENTITY_TOKEN_FILE")
    );
}

#[test]
fn a_profile_can_ask_for_the_proxy_and_needs_no_files_then() {
    let sandbox = Sandbox::start(&[]);
    let profile = sandbox.profile("work").replace("audience", "proxy = true\nsdk-files = false\naudience");
    let home = Home::new(&profile);
    let daemon = home.daemon();
    let seen = shown(&home, &["exec", "--", "sh", "-c", SHOW], &[]);
    assert!(seen.iter().any(|(name, _)| name == "WANDB_API_KEY"), "{seen:?}");
    assert!(!home.sdk_file("work", "token").exists());
    let status = home.run(&["status"]);
    assert!(status.out.contains("proxy: http://127.0.0.1:"), "{}", status.out);
    drop(daemon);
}

#[test]
fn the_doctor_sends_a_request_through_the_proxy() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let doctor = |env: &[(&str, &str)]| {
        let doctor = format!("{DAEMON} doctor --json");
        let mut command = home.program(COMMAND, &["exec", "--proxy", "--", "sh", "-c", &doctor]);
        let report: serde_json::Value =
            serde_json::from_str(&ran(command.envs(env.iter().copied())).out).expect("json");
        let findings = report["findings"].as_array().expect("findings").clone();
        findings.into_iter().filter(|finding| finding["step"] == "loopback-proxy").collect::<Vec<_>>()
    };
    let found = doctor(&[]);
    assert_eq!((found.len(), &found[0]["verdict"]), (1, &"ok".into()), "{found:?}");
    assert!(found[0]["found"].as_str().expect("text").contains("a request through"), "{found:?}");
    let found = doctor(&[("HTTP_PROXY", "http://proxy.corp.example:3128")]);
    assert!(found.iter().all(|finding| finding["verdict"] == "ok"), "exec has seen to it: {found:?}");
    // A shell that has outlived its job's key, or its daemon.
    let url = daemon.get("/v1/status").json()["proxy"]["url"].as_str().expect("a URL").to_owned();
    let traces = format!("{url}/traces");
    for (url, traces, exit, word) in [
        (url.as_str(), traces.as_str(), 78, "is over"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1/traces", 78, "has none there"),
    ] {
        let mut command = home.program(DAEMON, &["doctor"]);
        command.env("WANDB_BASE_URL", url).env("WANDB_API_KEY", "k".repeat(40));
        let done = ran(command.env("WF_TRACE_SERVER_URL", traces).env("HTTP_PROXY", "http://proxy.example"));
        assert_eq!(done.code, Some(exit), "{}", done.out);
        assert!(done.out.contains(word) && done.out.contains("NO_PROXY does not name"), "{}", done.out);
    }
}

#[test]
fn a_daemon_on_demand_has_a_proxy_for_its_jobs() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let ask = "curl -s --noproxy '*' -u api:$WANDB_API_KEY -d '{\"query\":\"query Viewer { viewer { id } }\"}' $WANDB_BASE_URL/graphql";
    let mut command = home.program(COMMAND, &["exec", "--proxy", "--", "sh", "-c", ask]);
    let bins = std::path::Path::new(DAEMON).parent().expect("a folder");
    let path = std::env::join_paths(
        [bins.to_path_buf()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))),
    );
    let done = ran(command.env("PATH", path.expect("a path")).env("CI", "true"));
    assert!(done.out.contains("viewer"), "{done:?}");
}

#[test]
fn a_job_that_the_daemon_cannot_see_has_a_key_as_long_as_its_connection() {
    let namespace = ["-rpf", "--mount-proc", "--kill-child"];
    if ran(std::process::Command::new("unshare").args(namespace).arg("true")).code != Some(0) {
        println!("skipped: this user may not make PID namespaces");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let _daemon = home.daemon_of(&mut home.program("unshare", &[&namespace[..], &[DAEMON, "run"]].concat()));
    let told = home.path("told");
    let script = format!(
        "echo $WANDB_BASE_URL $WANDB_API_KEY > {0}.new; mv {0}.new {0}; exec sleep 600",
        told.display()
    );
    let mut job =
        home.program(COMMAND, &["exec", "--proxy", "--", "sh", "-c", &script]).spawn().expect("starts");
    let told = until("the job has a key", 20, || std::fs::read_to_string(&told).ok());
    let (url, key) = told.trim().split_once(' ').expect("a URL and a key");
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let proxy = super::client::Proxy { port, key: key.to_owned() };
    let ask = || proxy.post("/graphql", &[], br#"{"query":"query Viewer { viewer { id } }"}"#);
    assert_eq!(ask().status, 200);
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    until("the key is refused", 10, || (ask().status == 401).then_some(()));
}

#[test]
fn an_old_sdk_is_noticed_without_starting_python() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let _daemon = home.daemon();
    let packages = home.path("venv/lib/python3.11/site-packages/wandb-0.17.9.dist-info");
    std::fs::create_dir_all(packages).expect("made");
    for (arguments, said) in
        [(&["exec", "--", "true"][..], true), (&["exec", "--proxy", "--", "true"][..], false)]
    {
        let mut command = home.program(COMMAND, arguments);
        let done = ran(command.env("VIRTUAL_ENV", home.path("venv")));
        assert_eq!(done.err.contains("wandb 0.17.9"), said, "{}", done.err);
        assert_eq!(done.err.contains("exec --proxy"), said, "{}", done.err);
    }
}
