//! A child that outlives the process that its key was made for keeps the key, and nobody else does.

use std::path::Path;
use std::process::{Child, Command};

use super::client::{Proxy, World};
use crate::setup::{COMMAND, Daemon, Home, Sandbox, ran, until};

/// A shell that gets a key by `exec`, leaves a child behind that waits for the file `go`, and ends.
fn job_with_a_child(home: &Home, go: &Path) -> (Command, impl Fn() -> Proxy) {
    let told = home.path("told");
    let script = format!(
        "echo $WANDB_BASE_URL $WANDB_API_KEY > {0}.new; mv {0}.new {0}; \
         (while [ ! -e {1} ]; do sleep 0.05; done) > /dev/null 2>&1 &",
        told.display(),
        go.display()
    );
    let command = home.program(COMMAND, &["exec", "--proxy", "--", "sh", "-c", &script]);
    let read = move || {
        let told = std::fs::read_to_string(&told).expect("told");
        let (url, key) = told.trim().split_once(' ').expect("a URL and a key");
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        Proxy { port, key: key.to_owned() }
    };
    (command, read)
}

fn status(proxy: &Proxy) -> u16 {
    proxy.post("/graphql", &[], br#"{"query":"query Viewer { viewer { id } }"}"#).status
}

/// The process that the daemon takes for the job.
fn pid_shown(daemon: &Daemon) -> Option<u64> {
    daemon.get("/v1/status").json()["proxy"]["jobs"][0]["pid"].as_u64()
}

#[test]
fn a_child_that_outlives_its_job_keeps_the_key_until_it_ends() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut daemon = home.daemon();
    let go = home.path("go");
    let (mut job, proxy) = job_with_a_child(&home, &go);
    let mut job = job.spawn().expect("starts");
    assert!(job.wait().expect("it ends").success());
    let (proxy, gone) = (proxy(), u64::from(job.id()));
    until("the child has the key", 20, || {
        assert_eq!(status(&proxy), 200, "not even for a moment");
        let pid = pid_shown(&daemon)?;
        (pid != gone && Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    assert!(daemon.log().contains("has outlived the job that its key was made for"));
    // A later daemon finds the child as well, by the record and by its environment.
    for _ in 0..2 {
        daemon.kill();
        daemon = home.daemon();
        until("it is served again", 10, || {
            std::net::TcpStream::connect(proxy.host()).ok()?;
            (status(&proxy) == 200).then_some(())
        });
    }
    std::fs::write(&go, "").expect("written");
    until("the key is refused", 20, || (status(&proxy) == 401).then_some(()));
    assert_eq!(daemon.get("/v1/status").json()["proxy"]["jobs"], serde_json::json!([]));
}

#[test]
fn a_daemon_that_comes_back_finds_a_child_whose_job_has_ended_meanwhile() {
    let mut world = World::new();
    // A job that is known, and a child that carries its key.
    let shell = |script: &str, key: &str| -> Child {
        Command::new("sh").args(["-c", script]).env("WANDB_API_KEY", key).spawn().expect("starts")
    };
    let mut job = shell("exec sleep 600", "");
    let proxy = world.job(job.id());
    let mut child = shell("exec sleep 600", &proxy.key);
    world.daemon.kill();
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    world.daemon = world.home.daemon();
    until("the child's key is good", 10, || {
        std::net::TcpStream::connect(proxy.host()).ok()?;
        (proxy.get("/x").status == 200).then_some(())
    });
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    until("the key is refused", 10, || (proxy.get("/x").status == 401).then_some(()));
}

#[test]
fn a_daemon_on_demand_stays_for_a_child_with_a_key() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let credd = crate::on_demand::with_grace(&home, "50ms");
    let go = home.path("go");
    let (mut job, proxy) = job_with_a_child(&home, &go);
    assert_eq!(ran(job.env("WANDB_CREDD", &credd)).code, Some(0));
    let proxy = proxy();
    let jobs = || home.run(&["status", "--jobs", "--json"]).out;
    until("the child is adopted", 20, || jobs().contains("adopted").then_some(()));
    assert_eq!(status(&proxy), 200);
    let folder = crate::on_demand::folders(&home).pop().expect("a folder");
    std::fs::write(&go, "").expect("written");
    until("it leaves", 20, || (!folder.exists()).then_some(()));
}
