//! Clients that are slow, broken or many: the others are served meanwhile, and nothing is kept of them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::setup::{Daemon, Home, Sandbox, median, now, raise_file_limit, until};
use crate::talk;

fn warm() -> (Sandbox, Home, Daemon) {
    raise_file_limit();
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    daemon.token("");
    (sandbox, home, daemon)
}

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(&daemon.socket).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    stream
}

/// Median of a few reads on connections of their own.
fn latency(daemon: &Daemon) -> Duration {
    let mut samples: Vec<_> = (0..50)
        .map(|_| {
            let start = now();
            assert_eq!(daemon.get("/v1/token").status, 200);
            now() - start
        })
        .collect();
    median(&mut samples)
}

/// Every descriptor is returned.
fn assert_closed(daemon: &Daemon, files: usize) {
    until("descriptors are returned", 20, || (daemon.files() <= files + 2).then_some(()));
}

/// Nothing of what was there remains: descriptors at once, memory soon.
fn assert_recovered(daemon: &Daemon, files: usize, memory: u64, what: &str) {
    assert_closed(daemon, files);
    let left = until(&format!("{what}: memory is back at {memory} KiB and a quarter"), 20, || {
        Some(daemon.memory()).filter(|left| *left <= memory + memory / 4)
    });
    println!("{what}: {memory} KiB before, {left} KiB after");
}

#[test]
fn a_thousand_idle_connections_cost_little_and_delay_nobody() {
    let (_sandbox, _home, daemon) = warm();
    let (calm, files, memory) = (latency(&daemon), daemon.files(), daemon.memory());
    let idle: Vec<_> = (0..1000).map(|_| connect(&daemon)).collect();
    until("all are taken", 20, || (daemon.metric("wandb_cred_connections ") > 1000.0).then_some(()));
    let busy = latency(&daemon);
    let used = daemon.memory();
    println!("1000 idle connections: {calm:?} before, {busy:?} with; {memory} KiB before, {used} KiB with");
    assert!(busy < (3 * calm).max(Duration::from_millis(10)), "{calm:?} became {busy:?}");
    assert!(used < memory + 40 * 1024, "{memory} KiB grew to {used} KiB");
    drop(idle);
    assert_closed(&daemon, files);
}

#[test]
fn memory_does_not_grow_from_burst_to_burst() {
    raise_file_limit();
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let files = daemon.files();
    let burst = |_| {
        let idle: Vec<_> = (0..2000).map(|_| connect(&daemon)).collect();
        until("all are taken", 20, || (daemon.metric("wandb_cred_connections ") > 2000.0).then_some(()));
        // The first time, all that a renewal needs is made amid the burst, and stays.
        daemon.token("");
        drop(idle);
        // Each of the two keepers waits with a timer from now on.
        assert_closed(&daemon, files + 2);
        daemon.memory()
    };
    // The allocator keeps what the first bursts have used; from then on no burst may add to it. `scripts/bench` holds
    // the release build to a number.
    let after: Vec<u64> = (0..10).map(burst).collect();
    println!("after each burst: {after:?} KiB");
    assert!(after[9] <= after[4] + after[4] / 20, "{after:?} KiB");
}

#[test]
fn slow_senders_and_readers_delay_nobody() {
    let (_sandbox, _home, daemon) = warm();
    let (calm, files, memory) = (latency(&daemon), daemon.files(), daemon.memory());
    let mut slow: Vec<_> = (0..200).map(|_| connect(&daemon)).collect();
    // Many requests, and nobody reads the answers: the daemon stops reading, it does not pile them up.
    let deaf: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect(&daemon);
            stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a time-out");
            let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
            for _ in 0..100 {
                if stream.write_all(&request).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    let start = now();
    for byte in b"GET /v1/token".chunks(1).take(4) {
        for stream in &mut slow {
            stream.write_all(byte).expect("taken");
        }
        let busy = latency(&daemon);
        assert!(busy < (5 * calm).max(Duration::from_millis(20)), "{calm:?} became {busy:?}");
        thread::sleep(Duration::from_secs(1).saturating_sub((now() - start) / 4));
    }
    let used = daemon.memory();
    println!("slow and deaf clients: {memory} KiB before, {used} KiB with");
    assert!(used < memory + 60 * 1024, "{memory} KiB grew to {used} KiB");
    drop((slow, deaf));
    assert_recovered(&daemon, files, memory, "slow and deaf clients");
}

#[test]
fn connections_that_send_nothing_are_closed_before_and_after_a_request() {
    let (_sandbox, _home, daemon) = warm();
    let start = now();
    let mut silent = connect(&daemon);
    let mut half = connect(&daemon);
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost:").expect("taken");
    let mut drip = connect(&daemon);
    let mut kept = connect(&daemon);
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    let dripping = thread::spawn(move || {
        while now() - start < Duration::from_secs(45) {
            // Every byte is progress, and yet the head is never whole.
            if drip.write_all(b"G").is_err() {
                return now() - start;
            }
            thread::sleep(Duration::from_millis(500));
        }
        Duration::MAX
    });
    for (what, stream) in [("silent", &mut silent), ("half", &mut half), ("kept", &mut kept)] {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let took = now() - start;
        println!("{what}: closed after {took:?}");
        assert!(ended.is_ok() && took < Duration::from_secs(45), "{what}: {ended:?} after {took:?}");
        assert!(took > Duration::from_secs(20), "{what}: closed after {took:?} already");
    }
    let took = dripping.join().expect("no panic");
    assert!(took < Duration::from_secs(45), "a byte now and then keeps a connection for ever");
    until("all are gone", 10, || (daemon.metric("wandb_cred_connections ") <= 1.0).then_some(()));
}

#[test]
fn nonsense_is_refused_and_forgotten() {
    let (_sandbox, _home, daemon) = warm();
    let (files, memory) = (daemon.files(), daemon.memory());
    let long = |size: usize| "x".repeat(size);
    let many: String = (0..=100).map(|i| format!("h{i}: x\r\n")).collect();
    let chunked = "POST /v1/rejected HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let post = |length: usize, body: &str| {
        format!("POST /v1/rejected HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    // What is sent, and the status it is answered with; `None` for a connection that is closed without one.
    let requests: Vec<(String, &[u16])> = vec![
        ("\0\u{1}\u{2}\u{7f}\r\n\r\n".to_owned(), &[400]),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), &[400]),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(), &[400, 0]),
        ("GET\r\n\r\n".to_owned(), &[400]),
        ("GET /v1/token HTTP/9.9\r\n\r\n".to_owned(), &[400]),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long(70_000)), &[400, 414, 431, 0]),
        (format!("GET /healthz HTTP/1.1\r\nHost: x\r\nx: {}\r\n\r\n", long(70_000)), &[400, 431, 0]),
        (format!("GET /healthz HTTP/1.1\r\n{many}\r\n"), &[400, 431]),
        (post(4, "null"), &[400]),
        (post(7, "{\"a\":1}"), &[400]),
        (post(40_000, &long(40_000)), &[400]),
        (format!("{chunked}ffffffff\r\nxx"), &[400, 0]),
        (format!("{chunked}zz\r\n"), &[400, 0]),
        ("POST /v1/rejected HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_owned(), &[400]),
        ("DELETE /v1/token HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[405]),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[404]),
        ("GET /v1/token?profile=%00%ff HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[404]),
        ("GET /v1/token?min_ttl=-1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[400]),
        ("GET /v1/token?min_ttl=99999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[400]),
        ("GET /v1/token HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n\r\n".to_owned(), &[403]),
        ("GET /v1/token HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1\r\n\r\n".to_owned(), &[403]),
    ];
    for (request, expected) in requests {
        let shown: String = request.chars().take(60).collect();
        let mut stream = connect(&daemon);
        // A refusal may come, and the connection end, before all was sent.
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(
            read.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true),
            "{shown:?}: {read:?}"
        );
        let status = talk::parse(&answer).map_or(0, |answer| answer.status);
        assert!(expected.contains(&status), "{shown:?}: {status} {}", String::from_utf8_lossy(&answer));
    }
    for round in 0..2000 {
        let mut stream = connect(&daemon);
        match round % 4 {
            0 => drop(stream),
            1 => drop(stream.write_all(b"GET /v1/tok")),
            2 => drop(stream.write_all(b"GET /v1/token HTTP/1.1\r\nHost: x\r\n\r\n")),
            _ => drop(stream.write_all(&[0xff; 300])),
        }
    }
    assert_eq!(daemon.get("/v1/token").status, 200);
    assert_recovered(&daemon, files, memory, "nonsense and early closes");
}

#[test]
fn who_has_said_all_still_gets_the_answer() {
    let sandbox = Sandbox::start(&["--exchange-delay", "300"]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let mut stream = connect(&daemon);
    stream.write_all(b"GET /v1/token HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert_eq!(talk::parse(&answer).map(|answer| answer.status), Some(200));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_sandbox, _home, daemon) = warm();
    let mut stream = connect(&daemon);
    let requests =
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    stream.write_all(requests.as_bytes()).expect("taken");
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).expect("answers");
    let text = String::from_utf8_lossy(&answers);
    let statuses: Vec<_> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404"].repeat(50));
}

#[test]
fn over_the_bound_a_few_are_served_at_once_and_the_rest_when_there_is_room() {
    let most = raise_file_limit();
    if most < 6000 {
        println!("skipped: only {most} files may be open here");
        return;
    }
    let (_sandbox, _home, daemon) = warm();
    let (files, memory) = (daemon.files(), daemon.memory());
    let mut idle: Vec<_> = (0..4096).map(|_| connect(&daemon)).collect();
    until("the daemon is full", 20, || (daemon.files() >= files + 4090).then_some(()));
    println!("4096 connections: {memory} KiB before, {} KiB with", daemon.memory());
    assert!(daemon.memory() < memory + 120 * 1024, "{} KiB", daemon.memory());
    for _ in 0..100 {
        assert_eq!(daemon.get("/v1/token").status, 200, "from the reserve");
    }
    // With the reserve taken too, the rest stays in the kernel's queue, which blocks when it is full.
    let reserve: Vec<_> = (0..64).map(|_| connect(&daemon)).collect();
    until("the reserve is taken", 20, || (daemon.files() > files + 4096).then_some(()));
    let mut waiting = connect(&daemon);
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("queued");
    waiting.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
    let early = waiting.read(&mut [0; 1]).expect_err("nobody has time yet");
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    idle.truncate(4000);
    waiting.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).expect("an answer");
    assert_eq!(talk::parse(&answer).map(|answer| answer.status), Some(200));
    drop((idle, reserve));
    assert_closed(&daemon, files);
}

#[test]
fn callers_that_hang_up_while_they_wait_leave_their_places_at_once() {
    let most = raise_file_limit();
    if most < 6000 {
        println!("skipped: only {most} files may be open here");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    sandbox.control().faults(&serde_json::json!({ "exchange": "hang" }));
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let ask = |target: &str| {
        let mut stream = connect(&daemon);
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("taken");
        stream
    };
    // One has said all, and still listens.
    let mut listening = ask("/v1/token?wait=15");
    listening.shutdown(std::net::Shutdown::Write).expect("shut");
    let waiting: Vec<_> = (0..4095).map(|_| ask("/v1/token?wait=89")).collect();
    until("all wait", 30, || (daemon.metric("wandb_cred_connections ") > 4096.0).then_some(()));
    let crowded = daemon.get("/v1/token?wait=89");
    assert_eq!(crowded.status, 429, "{}", crowded.text());
    drop(waiting);
    let start = now();
    until("their places are free", 10, || (daemon.metric("wandb_cred_connections ") <= 2.0).then_some(()));
    println!("4095 places free after {:?}", now() - start);
    let mut answer = Vec::new();
    listening.read_to_end(&mut answer).expect("an answer");
    assert!(talk::parse(&answer).is_some_and(|answer| answer.status >= 500), "answered all the same");
}
