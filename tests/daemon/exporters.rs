//! The metrics where Prometheus can see them: a loopback port, and a file for node_exporter.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::setup::{COMMAND, DAEMON, Daemon, Home, Sandbox, now, ran, until};
use crate::talk::{self, Answer};
use crate::wakeups::wakeups;

/// Where it says that it listens.
fn address(daemon: &Daemon, count: usize) -> String {
    until("the port", 10, || {
        let log = daemon.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("metrics for Prometheus")).collect();
        let line = lines.get(count - 1)?;
        Some(line.rsplit_once("address=").expect("an address").1.trim().to_owned())
    })
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

fn ask(address: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    talk::ask(connect(address), "GET", target, headers, "").expect("an answer")
}

/// A request with a `Host` of its own.
fn ask_as(address: &str, host: &str) -> Answer {
    use std::io::Write as _;
    let mut stream = connect(address);
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    talk::parse(&bytes).expect("an answer")
}

/// The samples of the text format, held to its grammar as far as we use it: each has its family's type before it.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut kinds = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let (what, rest) = about.split_once(' ').expect("HELP or TYPE");
            let (name, rest) = rest.split_once(' ').expect("a name");
            assert!(["HELP", "TYPE"].contains(&what) && !rest.is_empty(), "{line}");
            kinds.insert(name.to_owned(), rest.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().expect("a name");
        let kind = kinds.get(name).unwrap_or_else(|| panic!("no type of {name}"));
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        assert!(
            samples.insert(series.to_owned(), value.parse().expect("a number")).is_none(),
            "{line} twice"
        );
    }
    samples
}

#[test]
fn a_loopback_port_shows_metrics_and_health_and_nothing_else() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&format!("metrics-listen = \"127.0.0.1:0\"\n{}", sandbox.profile("work")));
    let daemon = home.daemon();
    let token = daemon.token("");
    let address = address(&daemon, 1);

    let classic = ask(&address, "/metrics", &[]);
    assert!(classic.head.contains("text/plain; version=0.0.4"), "{}", classic.head);
    let found = samples(&classic.text());
    assert_eq!(found["wandb_cred_exchanges_total{profile=\"work\"}"], 1.0);
    assert_eq!(found["wandb_cred_requests_total{route=\"/v1/token\",status=\"200\"}"], 1.0);
    assert!(found["wandb_cred_expiry_timestamp_seconds{profile=\"work\",stage=\"access\"}"] > 1.7e9);
    let open = ask(&address, "/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")]);
    assert!(open.head.contains("openmetrics") && open.text().ends_with("# EOF\n"), "{}", open.text());
    assert!(!open.text().contains(&token[6..]) && !classic.text().contains(&token[6..]));

    assert_eq!((ask(&address, "/healthz", &[]).status, ask(&address, "/readyz", &[]).status), (200, 200));
    for target in ["/v1/token", "/v1/status", "/v1/identity-token", "/", "/metrics/../v1/token"] {
        let answer = ask(&address, target, &[]);
        assert_eq!(answer.status, 404, "{target}");
        assert!(!answer.text().contains("wb_at_"), "{target}");
    }
    let posted = talk::ask(connect(&address), "POST", "/metrics", &[], "x").expect("an answer");
    assert_eq!(posted.status, 405);
    assert_eq!(ask(&address, "/metrics", &[("Origin", "http://evil.example")]).status, 403);
    for host in ["evil.example", "evil.example:9464", "127.0.0.1.nip.io"] {
        assert_eq!(ask_as(&address, host).status, 403, "{host}");
    }
    assert_eq!(ask_as(&address, "localhost").status, 200);
}

#[test]
fn connections_to_it_are_few_and_short() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&format!("metrics-listen = \"127.0.0.1:0\"\n{}", sandbox.profile("work")));
    let daemon = home.daemon();
    let address = address(&daemon, 1);
    let before = daemon.files();
    let silent: Vec<_> = (0..40).map(|_| connect(&address)).collect();
    let began = now();
    assert_eq!(ask(&address, "/healthz", &[]).status, 200, "once the silent ones are cut off");
    println!("served after {:?} among {} silent connections", now() - began, silent.len());
    assert!(now() - began > Duration::from_secs(3), "they were not counted");
    assert!(daemon.files() <= before + 35, "{} files", daemon.files());
    assert!(daemon.token("").starts_with("wb_at_"));
}

#[test]
fn a_reload_moves_it_and_a_taken_port_is_waited_for() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let configure = |listen: &str| {
        home.write_config(&format!("{listen}{}", sandbox.profile("work")));
        daemon.signal(Signal::HUP);
    };
    configure("metrics-listen = \"127.0.0.1:0\"\n");
    let first = address(&daemon, 1);
    assert_eq!(ask(&first, "/healthz", &[]).status, 200);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let second = taken.local_addr().expect("known").to_string();
    configure(&format!("metrics-listen = \"{second}\"\n"));
    until("it is said", 10, || daemon.log().contains("cannot listen for Prometheus").then_some(()));
    until("the first port is closed", 10, || TcpStream::connect(&first).is_err().then_some(()));
    drop(taken);
    until("the second port is open", 20, || TcpStream::connect(&second).ok());
    assert_eq!(ask(&second, "/healthz", &[]).status, 200);
    configure("");
    until("it is closed", 10, || TcpStream::connect(&second).is_err().then_some(()));

    home.write_config(&format!("metrics-listen = \"0.0.0.0:9464\"\n{}", sandbox.profile("work")));
    let checked = ran(&mut home.program(DAEMON, &["check"]));
    assert_eq!(checked.code, Some(78));
    assert!(checked.err.contains(":1:") && checked.err.contains("other machines"), "{}", checked.err);
}

#[test]
fn a_file_for_node_exporter_follows_and_goes_with_the_daemon() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let path = home.path("wandb-cred-1000.prom");
    home.write_config(&format!("metrics-textfile = \"{}\"\n{}", path.display(), sandbox.profile("work")));
    let mut daemon = home.daemon();
    let read = |path: &Path| samples(&fs::read_to_string(path).unwrap_or_default());
    until("the file", 10, || path.exists().then_some(()));
    assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777, 0o644);
    assert_eq!(home.run(&["exec", "--", "true"]).code, Some(0));
    let series = "wandb_cred_exchanges_total{profile=\"work\"}";
    let began = now();
    let found = until("it follows", 30, || Some(read(&path)).filter(|found| found.get(series) == Some(&1.0)));
    println!("written after {:?}", now() - began);
    assert!(found.contains_key("wandb_cred_expiry_timestamp_seconds{profile=\"work\",stage=\"access\"}"));
    assert!(!found.keys().any(|name| name.contains("remaining")), "out of date at once");
    // No request brings this about.
    let mut job = home.program(COMMAND, &["exec", "--", "sleep", "60"]).spawn().expect("starts");
    let jobs = "wandb_cred_jobs{profile=\"work\"}";
    until("the job", 30, || (read(&path).get(jobs) == Some(&1.0)).then_some(()));
    job.kill().expect("it runs");
    job.wait().expect("it ends");
    until("its end", 30, || (read(&path).get(jobs) == Some(&0.0)).then_some(()));
    daemon.signal(Signal::TERM);
    assert!(daemon.ended(10).success());
    assert!(!path.exists(), "the metrics of a daemon that has ended");
}

#[test]
fn what_follows_changes_does_not_wake_an_idle_daemon() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    home.write_config(&format!(
        "audit-log = \"{0}\"\nmetrics-listen = \"127.0.0.1:0\"\nmetrics-textfile = \"{0}.prom\"\n{1}",
        home.path("audit").display(),
        sandbox.profile("work")
    ));
    let daemon = home.daemon();
    daemon.token("");
    // The last look at the metrics comes within fifteen seconds of the last change.
    let mut quiet = (now(), 0);
    until("the last look", 60, || {
        let count = wakeups(daemon.pid());
        if count != quiet.1 {
            quiet = (now(), count);
        }
        (now() - quiet.0 > Duration::from_secs(17)).then_some(())
    });
    let (before, start) = (wakeups(daemon.pid()), now());
    while now() - start < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(wakeups(daemon.pid()), before, "a timer ticks");
}
