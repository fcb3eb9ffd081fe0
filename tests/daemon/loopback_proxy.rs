//! The loopback proxy: each thing that went wrong in other proxies, or could.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::json;

use crate::setup::{now, until};
use client::{World, ask, basic, read};
use server::answer;

pub(crate) mod client;
mod gateway;
mod jobs;
mod server;
mod survivors;
mod thread;
mod tls;
mod upstream;

/// A process that a job can be.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("sleep starts"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_key_becomes_a_token_and_nothing_else_changes() {
    let world = World::new();
    let headers = [
        ("X-WANDB-USERNAME", "ada"),
        ("Content-MD5", "abc"),
        ("Content-Encoding", "gzip"),
        ("Use-Admin-Privileges", "true"),
        ("Keep-Alive", "timeout=5"),
        ("X-Hop", "1"),
        ("Connection", "X-Hop"),
        ("User-Agent", "wandb-core"),
    ];
    let packed: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let answered = world.proxy.post("/echo?a=%20b&c=%2F", &headers, &packed);
    assert_eq!(answered.status, 200);
    let seen = world.server.seen().pop().expect("a request");
    assert_eq!(seen.line(), "POST /echo?a=%20b&c=%2F HTTP/1.1");
    assert_eq!(seen.body, packed);
    let own = format!("Bearer {}", world.daemon.token(""));
    let host = world.server.url.trim_start_matches("http://");
    for (name, value) in [("authorization", own.as_str()), ("host", host), ("content-length", "70000")] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    for (name, value) in &headers[..4] {
        assert_eq!(seen.header(name), Some(*value), "{name}");
    }
    for name in ["keep-alive", "x-hop", "connection", "accept", "accept-encoding"] {
        assert_eq!(seen.header(name), None, "{name}: {}", seen.head);
    }
    assert_eq!(seen.head.lines().count(), 9, "{}", seen.head);
    assert!(!seen.head.contains(&world.proxy.key));
}

#[test]
fn what_is_packed_stays_packed_both_ways() {
    let world = World::new();
    let packed: Vec<u8> =
        (0..300_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let answered =
        world.proxy.post("/echo", &[("Content-Encoding", "gzip"), ("Accept-Encoding", "gzip")], &packed);
    assert_eq!((answered.status, answered.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(answered.header("content-length"), Some(packed.len().to_string().as_str()));
    assert!(answered.whole && answered.body == packed, "{} bytes", answered.body.len());
    assert_eq!(world.server.seen()[0].header("accept-encoding"), Some("gzip"));
}

#[test]
fn only_our_own_host_is_answered() {
    let world = World::new();
    let port = world.proxy.port;
    for host in [
        "evil.example",
        &format!("localhost.evil.example:{port}"),
        "127.0.0.1",
        &format!("localhost:{port}"),
        "",
    ] {
        let head = format!(
            "GET /answer HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
            world.proxy.authorization()
        );
        assert_eq!(world.proxy.raw(head.as_bytes()).status, 421, "{host}");
    }
    assert!(world.server.seen().is_empty());
}

#[test]
fn a_key_that_is_not_ours_gets_a_sentence_that_helps() {
    let world = World::new();
    let ours = &world.proxy.key;
    assert!(ours.len() == 40 && ours.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", ours.len());
    let other = if ours.starts_with('0') { "1" } else { "0" };
    let near = format!("{other}{}", &ours[1..]);
    for key in [&ours[1..], &format!("{ours}a"), &near, &format!("{}-", &ours[1..])] {
        let head = format!(
            "POST /graphql HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Length: 2\r\n\r\n{{}}",
            world.proxy.host(),
            basic(key)
        );
        let refused = world.proxy.raw(head.as_bytes());
        assert_eq!(refused.status, 401, "{}", key.len());
        assert!(refused.message().contains("sets its own WANDB_API_KEY"), "{}", refused.message());
        assert!(!refused.text().contains(key));
    }
    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", world.proxy.host());
    let refused = world.proxy.raw(head.as_bytes());
    assert_eq!(refused.status, 401);
    assert!(refused.message().contains("no key"), "{}", refused.message());
    assert!(world.server.seen().is_empty());
    assert!(!world.daemon.log().contains(ours));
}

#[test]
fn browsers_general_proxying_and_the_exchange_are_refused() {
    let world = World::new();
    for (line, header, status) in [
        ("GET /graphql", ("Origin", "https://evil.example"), 403),
        ("GET /graphql", ("Origin", "null"), 403),
        ("OPTIONS /graphql", ("X", "y"), 405),
        ("TRACE /", ("X", "y"), 405),
        ("CONNECT wandb.example:443", ("X", "y"), 405),
        ("GET http://wandb.example/graphql", ("X", "y"), 400),
        ("GET /graphql", ("Upgrade", "websocket"), 400),
        ("POST /oidc/token", ("X", "y"), 403),
        ("POST /%6Fidc/token", ("X", "y"), 403),
        ("POST //oidc/token", ("X", "y"), 403),
        ("POST /a/..%2Foidc/token", ("X", "y"), 400),
    ] {
        let refused = world.proxy.raw(world.proxy.head(line, &[header, ("Connection", "close")]).as_bytes());
        assert_eq!(refused.status, status, "{line} {header:?}");
        assert_eq!(refused.header("access-control-allow-origin"), None);
    }
    // Node sends this without an Origin.
    let node = world.proxy.post("/answer2", &[("Sec-Fetch-Mode", "cors")], b"{}");
    assert_eq!((node.status, world.server.seen().len()), (200, 1));
}

#[test]
fn nothing_is_read_of_a_body_whose_sender_is_refused() {
    let world = World::new();
    let head = |authorization: &str| {
        format!(
            "PUT /files/x HTTP/1.1\r\nHost: {}\r\nAuthorization: {authorization}\r\nContent-Length: 3\r\n\
             Expect: 100-continue\r\n\r\n",
            world.proxy.host()
        )
    };
    let mut stream = world.proxy.connect();
    stream.write_all(head(&basic(&"x".repeat(40))).as_bytes()).expect("sent");
    assert_eq!(read(&mut stream, false).expect("an answer").status, 401, "and no 100 before it");
    let mut stream = world.proxy.connect();
    stream.write_all(head(&world.proxy.authorization()).as_bytes()).expect("sent");
    assert_eq!(read(&mut stream, true).expect("an answer").status, 100);
    stream.write_all(b"abc").expect("sent");
    assert_eq!(read(&mut stream, false).expect("an answer").status, 200);
    let seen = world.server.seen();
    assert_eq!((seen[0].body.as_slice(), seen[0].header("expect")), (&b"abc"[..], None));
}

#[test]
fn a_request_with_two_framings_is_refused_and_a_chunked_one_is_not() {
    let world = World::new();
    let chunked = ("Transfer-Encoding", "chunked");
    for order in [[chunked, ("Content-Length", "3")], [("Content-Length", "3"), chunked]] {
        let head = world.proxy.head("POST /echo", &order);
        assert_eq!(
            world.proxy.raw(format!("{head}3\r\nabc\r\n0\r\n\r\n").as_bytes()).status,
            400,
            "{order:?}"
        );
    }
    let head = world.proxy.head("POST /echo", &[chunked]);
    let mut stream = world.proxy.connect();
    for _ in 0..2 {
        // Twice on one connection: the second head is not the first one's.
        stream.write_all(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").as_bytes()).expect("sent");
        assert_eq!(read(&mut stream, false).expect("an answer").body, b"abcde");
    }
    let large = "x".repeat(3 * 1024 * 1024);
    let streamed = world.proxy.raw(format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len()).as_bytes());
    assert_eq!((streamed.status, streamed.body.len()), (200, large.len()));
    let lengths: Vec<_> =
        world.server.seen().iter().map(|seen| seen.header("content-length").map(str::to_owned)).collect();
    assert_eq!(lengths, [Some("5".to_owned()), Some("5".to_owned()), None]);
}

#[test]
fn answers_without_a_body_stay_without() {
    let world = World::new();
    let mut stream = world.proxy.connect();
    for (line, answered, status, length) in [
        ("HEAD /x", None, 200, Some("12345")),
        ("GET /answer", Some("HTTP/1.1 204 No Content\r\n\r\n"), 204, None),
        ("GET /answer", Some("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"), 304, None),
        ("HEAD /x", None, 200, Some("12345")),
    ] {
        if let Some(answered) = answered {
            world.server.answer_with(answered);
        }
        stream.write_all(world.proxy.head(line, &[]).as_bytes()).expect("sent");
        let got = read(&mut stream, true).expect("an answer");
        assert_eq!((got.status, got.header("content-length")), (status, length), "{line}: {}", got.head);
    }
    stream.write_all(world.proxy.head("GET /after", &[]).as_bytes()).expect("sent");
    assert_eq!(read(&mut stream, false).expect("an answer").body, b"{}", "the framing is still in step");
}

#[test]
fn telemetry_without_a_key_is_taken_and_goes_nowhere() {
    let world = World::new();
    let host = world.proxy.host();
    for (kind, body) in [("application/x-protobuf", ""), ("application/json", "{}")] {
        let request = format!(
            "POST /sdk/otel/v1/metrics HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: 4\r\n\r\nabcd"
        );
        let taken = world.proxy.raw(request.as_bytes());
        assert_eq!((taken.status, taken.text().as_str()), (200, body));
        assert_eq!(taken.header("content-type"), Some(kind));
    }
    assert!(world.server.seen().is_empty());
}

#[test]
fn weave_asks_its_trace_server_through_the_proxy() {
    let world = World::new();
    world.proxy.post("/traces/call/start?x=1", &[], b"{}");
    let head = format!(
        "GET /traces/server_info HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        world.proxy.host()
    );
    assert_eq!(world.proxy.raw(head.as_bytes()).status, 200);
    let seen = world.server.seen();
    assert_eq!(seen[0].target(), "/traces/call/start?x=1");
    assert_eq!(
        (seen[1].target(), seen[1].header("authorization")),
        ("/traces/server_info", None),
        "without our token"
    );

    let traces = server::Server::start();
    let world = World::with(&format!("trace-url = \"{}\"", traces.url));
    world.proxy.post("/traces/call/start?x=1", &[], b"{}");
    assert_eq!(traces.seen()[0].target(), "/call/start?x=1");
    assert!(world.server.seen().is_empty());
}

#[test]
fn a_redirect_is_not_followed_and_leads_back_to_us_where_it_is_the_servers_own() {
    let world = World::new();
    let ours = format!("http://{}/files/x?y=%20", world.proxy.host());
    for (location, expected) in [
        (format!("{}/files/x?y=%20", world.server.url), ours.as_str()),
        ("https://storage.example/x".to_owned(), "https://storage.example/x"),
        ("/files/x".to_owned(), "/files/x"),
    ] {
        world.server.answer_with(answer("302 Found", &[("Location", &location)], b""));
        let redirected = world.proxy.get("/answer");
        assert_eq!((redirected.status, redirected.header("location")), (302, Some(expected)));
    }
}

#[test]
fn addresses_of_files_become_the_proxys_where_they_were_asked_for() {
    let world = World::new();
    let (base, ours) = (&world.server.url, format!("http://{}", world.proxy.host()));
    let body = |base: &str, escaped: &str| {
        format!(
            r#"{{"data":[{{"url":"{base}/files/e/p/r/a.txt"}},{{"url":"{escaped}\/files\/e"}},{{"url":"https://storage.example/f?x={base}/files/"}}]}}"#
        )
    };
    let escaped = base.replace('/', "\\/");
    let (sent, expected) = (
        body(base, &escaped),
        body(base, &escaped)
            .replace(&format!("\"{base}/files/"), &format!("\"{ours}/files/"))
            .replace(&format!("\"{escaped}\\/files\\/"), &format!("\"{ours}/files/")),
    );
    world.server.answer_with(answer("200 OK", &[], sent.as_bytes()));
    let gzip = [("Accept-Encoding", "gzip")];
    let asked = world.proxy.post("/graphql", &gzip, br#"{"query":"{ files { node { url } } }"}"#);
    assert!(asked.whole);
    assert_eq!(asked.text(), expected);
    let other = world.proxy.post("/graphql", &gzip, br#"{"query":"{ viewer { id } }"}"#);
    assert_eq!(other.text(), sent, "nobody asked for an address");
    let elsewhere = world.proxy.post("/answer", &gzip, b"url");
    assert_eq!(elsewhere.text(), sent);
    let packed: Vec<_> =
        world.server.seen().iter().map(|seen| seen.header("accept-encoding").is_some()).collect();
    assert_eq!(packed, [false, true, true]);
    let file = world.proxy.get("/files/e/p/r/a.txt");
    assert_eq!(file.status, 200);
}

#[test]
fn a_connection_that_was_idle_for_half_a_minute_is_still_good() {
    let world = World::new();
    let mut stream = world.proxy.connect();
    let head = world.proxy.head("POST /x", &[("Content-Length", "2")]) + "{}";
    stream.write_all(head.as_bytes()).expect("sent");
    assert_eq!(read(&mut stream, false).expect("an answer").status, 200);
    // The one wait that cannot be polled for: that nothing happens.
    std::thread::sleep(Duration::from_secs(31));
    stream.write_all(head.as_bytes()).expect("sent");
    assert_eq!(read(&mut stream, false).expect("an answer").status, 200);
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let world = World::new();
    let long = "x".repeat(40 * 1024);
    assert_eq!(
        world
            .proxy
            .raw(world.proxy.head("GET /a", &[("X-A", &long), ("Connection", "close")]).as_bytes())
            .status,
        200
    );
    let head = world.proxy.head("GET /a", &[("X-A", &long), ("X-B", &long)]);
    assert_eq!(world.proxy.raw(head.as_bytes()).status, 431);
}

#[test]
fn another_user_is_refused_with_the_right_key() {
    let world = World::new();
    if !crate::setup::is_root() {
        return;
    }
    // A process of nobody, with the job's key.
    let request = world.proxy.head("GET /x", &[("Connection", "close")]);
    let mut child = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "bash", "-c"])
        .arg(format!("exec 3<>/dev/tcp/127.0.0.1/{}; cat >&3; cat <&3", world.proxy.port))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("setpriv starts");
    child.stdin.take().expect("piped").write_all(request.as_bytes()).expect("sent");
    let mut answered = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut answered).expect("an answer");
    child.wait().expect("it ends");
    assert!(answered.starts_with("HTTP/1.1 403"), "{answered}");
    assert!(world.server.seen().is_empty());
    assert_eq!(world.proxy.get("/x").status, 200, "we ourselves are served");
}

#[test]
fn nobody_who_did_not_ask_has_a_proxy() {
    let sandbox = crate::setup::Sandbox::start(&[]);
    let home = crate::setup::Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let own = json!({ "pid": std::process::id() }).to_string();
    assert_eq!(daemon.ask("POST", "/v1/jobs", &own).expect("an answer").status, 200);
    let listens = || {
        let inodes: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .expect("it runs")
            .filter_map(|file| file.expect("an entry").path().read_link().ok())
            .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
            .collect();
        std::fs::read_to_string("/proc/net/tcp")
            .expect("a table")
            .lines()
            .filter(|line| {
                let fields: Vec<_> = line.split_ascii_whitespace().collect();
                fields.get(3) == Some(&"0A")
                    && inodes.iter().any(|inode| fields.get(9) == Some(&inode.as_str()))
            })
            .count()
    };
    assert_eq!((listens(), thread::of_proxy(&daemon)), (0, None));
    assert!(daemon.get("/v1/status").json().get("proxy").is_none());
    assert!(!home.path("run/proxy.json").exists());
    let _ = ask(&daemon, std::process::id());
    assert_eq!(listens(), 1);
    until("its thread", 10, || thread::of_proxy(&daemon));
}

/// Talks to the port without a head.
pub(crate) fn silent(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("it listens")
}

#[test]
fn silent_connections_do_not_keep_others_out() {
    let world = World::new();
    let began = now();
    let _silent: Vec<_> = (0..50).map(|_| silent(world.proxy.port)).collect();
    assert_eq!(world.proxy.get("/x").status, 200);
    until("an answer in time", 1, || (now() < began + Duration::from_secs(10)).then_some(()));
}
