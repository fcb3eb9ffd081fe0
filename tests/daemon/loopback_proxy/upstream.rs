//! The server refuses a token, breaks off, is silent, or is not there.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use super::client::{World, read};
use super::server::answer;
use crate::setup::{now, until};

#[test]
fn sixty_four_requests_at_a_revocation_cost_one_exchange_and_all_succeed() {
    let world = World::new();
    world.proxy.post("/x", &[], b"before");
    assert_eq!(world.server.exchanges(), 1);
    world.server.delay_exchanges(Duration::from_millis(300));
    world.server.revoke();
    let threads: Vec<_> = (0..64)
        .map(|number| {
            let proxy = world.proxy.clone();
            thread::spawn(move || proxy.post("/echo", &[], format!("row {number}").as_bytes()))
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let answered = thread.join().expect("no panic");
        assert_eq!((answered.status, answered.text()), (200, format!("row {number}")));
    }
    assert_eq!(world.server.exchanges(), 2);
    let job = &world.daemon.get("/v1/status").json()["proxy"]["jobs"][0];
    assert_eq!(job["requests"], 65);
    let replays = job["replays"].as_u64().expect("a number");
    assert!((1..=64).contains(&replays), "{replays}");
    assert_eq!(world.daemon.metric("wandb_cred_proxy_requests_total{profile=\"work\"}"), 65.0);
}

#[test]
fn a_body_that_is_too_large_to_keep_is_asked_for_again() {
    let world = World::new();
    let body = vec![b'x'; 5 * 1024 * 1024];
    world.proxy.post("/x", &[], b"");
    world.server.revoke();
    let first = world.proxy.post("/echo", &[], &body);
    assert_eq!((first.status, first.header("retry-after")), (503, Some("1")), "{}", first.head);
    assert!(first.message().contains("send this again"));
    let second = world.proxy.post("/echo", &[], &body);
    assert!(second.status == 200 && second.body == body);
    // A server that refuses at the head, and hangs up on the rest.
    let early = world.proxy.post("/early-401", &[], &body);
    assert_eq!(early.status, 503, "{}", early.text());
}

#[test]
fn a_new_token_that_is_refused_too_costs_two_requests_and_no_more() {
    let world = World::new();
    world.proxy.post("/x", &[], b"");
    world.server.issue_dead_tokens();
    world.server.forget();
    let refused = world.proxy.post("/echo", &[], b"row");
    assert_eq!((refused.status, refused.message().as_str()), (401, "user is not logged in"));
    assert_eq!((world.server.seen().len(), world.server.exchanges()), (2, 2));
}

#[test]
fn a_token_that_ends_while_the_server_thinks_about_it_is_no_refusal() {
    let world = World::new();
    world.proxy.post("/x", &[], b"");
    let (proxy, exchanges) = (world.proxy.clone(), world.server.exchanges());
    let asked = thread::spawn(move || proxy.post("/late-401", &[], b"row"));
    until("it was sent again", 10, || {
        let sent = world.server.seen().iter().filter(|seen| seen.target() == "/late-401").count();
        (sent == 2).then_some(())
    });
    until("a newer token", 10, || {
        world.daemon.ask("POST", "/v1/refresh", "").ok()?;
        (world.server.exchanges() > exchanges + 1).then_some(())
    });
    let answered = asked.join().expect("no panic");
    assert_eq!((answered.status, answered.header("retry-after")), (503, Some("1")), "{}", answered.text());
    assert!(answered.message().contains("send this again"), "{}", answered.message());
}

#[test]
fn a_403_is_the_servers_word_and_is_passed_on() {
    let world = World::new();
    world.server.answer_with(answer("403 Forbidden", &[("X-Why", "no")], b"no"));
    let refused = world.proxy.post("/answer", &[], b"row");
    assert_eq!((refused.status, refused.header("x-why"), refused.text().as_str()), (403, Some("no"), "no"));
    assert_eq!((world.server.seen().len(), world.server.exchanges()), (1, 1));
}

#[test]
fn our_own_trouble_is_never_a_refusal() {
    let world = World::new();
    world.proxy.post("/x", &[], b"");
    world.server.refuse_exchanges();
    world.server.revoke();
    let began = now();
    let busy = world.proxy.post("/echo", &[], b"row");
    assert_eq!(busy.status, 503, "{}", busy.text());
    assert!(busy.header("retry-after").is_some());
    assert!(busy.message().contains("profile `work`"), "{}", busy.message());
    assert!(now() - began < Duration::from_secs(15), "SDKs do not wait for longer");
    assert_eq!(world.daemon.ask("POST", "/v1/lock", "").expect("an answer").status, 200);
    let locked = world.proxy.post("/echo", &[], b"row");
    assert!(locked.status == 503 && locked.message().contains("locked"), "{}", locked.text());
}

#[test]
fn a_server_that_is_not_there_is_a_503_with_its_name() {
    let world = World::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", nobody.local_addr().expect("bound"));
    drop(nobody);
    let world = World::with(&format!("trace-url = \"{url}\"\n# {}", world.server.url));
    let gone = world.proxy.post("/traces/call/start", &[], b"{}");
    assert!(gone.status == 503 && gone.message().contains("127.0.0.1"), "{}", gone.text());
}

#[test]
fn a_connection_that_the_server_gave_up_costs_nothing() {
    let world = World::new();
    assert_eq!(world.proxy.post("/then-slam", &[], b"1").status, 200);
    // The server closes that connection when this request comes on it.
    let again = world.proxy.post("/echo", &[], b"2");
    assert_eq!((again.status, again.text().as_str()), (200, "2"));
    let seen = world.server.seen();
    assert_ne!(seen[0].connection, seen[1].connection);
    // On a new connection the server meant it.
    world.server.forget();
    let slammed = world.proxy.post("/slam", &[], b"3");
    assert!(slammed.status == 503 && slammed.header("retry-after").is_some(), "{}", slammed.text());
}

#[test]
fn a_connection_is_used_again() {
    let world = World::new();
    let mut stream = world.proxy.connect();
    for _ in 0..5 {
        stream
            .write_all((world.proxy.head("POST /echo", &[("Content-Length", "1")]) + "x").as_bytes())
            .expect("sent");
        assert_eq!(read(&mut stream, false).expect("an answer").body, b"x");
    }
    let connections: std::collections::BTreeSet<_> =
        world.server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections.len(), 1, "{connections:?}");
}

#[test]
fn an_answer_that_breaks_off_breaks_off() {
    let world = World::new();
    for target in ["/cut-length", "/cut-chunked"] {
        let cut = world.proxy.get(target);
        assert_eq!((cut.status, cut.text().as_str()), (200, "half"), "{target}");
        assert!(!cut.whole, "{target}: a clean end");
    }
    // The rewrite is no way around that.
    world
        .server
        .answer_with("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{\"url\":\"http");
    let cut = world.proxy.post("/graphql", &[], br#"{"query":"{url}"}"#);
    assert!(cut.status == 200 && !cut.whole, "{}", cut.text());
}

#[test]
fn a_client_that_goes_away_takes_its_upload_with_it() {
    let world = World::new();
    let mut stream = world.proxy.connect();
    let head = world.proxy.head("PUT /files/x", &[("Content-Length", "100000000")]);
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&vec![b'x'; 3 * 1024 * 1024]).expect("sent");
    until("it is on its way", 10, || {
        let sent = world.daemon.get("/v1/status").json()["proxy"]["jobs"][0]["bytes_sent"].as_u64();
        sent.filter(|sent| *sent > 0)
    });
    drop(stream);
    until("the server hears of it", 10, || (world.server.aborted() == 1).then_some(()));
    assert_eq!(world.proxy.get("/x").status, 200);
}

#[test]
fn an_upload_streams_and_takes_no_memory() {
    let world = World::new();
    world.proxy.post("/x", &[], b"");
    let before = world.daemon.memory();
    let mut stream = world.proxy.connect();
    let size = 64 * 1024 * 1024;
    let head = world.proxy.head("PUT /files/x", &[("Content-Length", &size.to_string())]);
    stream.write_all(head.as_bytes()).expect("sent");
    let piece = vec![b'x'; 1024 * 1024];
    let mut most = before;
    for _ in 0..size / piece.len() {
        stream.write_all(&piece).expect("sent");
        most = most.max(world.daemon.memory());
    }
    assert_eq!(read(&mut stream, false).expect("an answer").status, 200);
    let body = world.server.seen().pop().expect("a request").body.len();
    assert_eq!(body, size);
    assert!(most - before < 8 * 1024, "{} KiB more", most - before);
}

#[test]
fn memory_for_bodies_that_are_kept_has_a_bound() {
    let world = World::new();
    world.proxy.post("/x", &[], b"");
    let piece = vec![b'x'; 1000 * 1024];
    let head = world.proxy.head("PUT /echo", &[("Content-Length", &(piece.len() + 1).to_string())]);
    // All but the last byte of forty bodies: thirty-two are kept, the others stream.
    let mut streams: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = world.proxy.connect();
            stream.write_all(head.as_bytes()).expect("sent");
            stream.write_all(&piece).expect("sent");
            stream
        })
        .collect();
    for stream in &mut streams {
        stream.write_all(b"y").expect("sent");
    }
    for stream in &mut streams {
        let answered = read(stream, false).expect("an answer");
        assert_eq!((answered.status, answered.body.len()), (200, piece.len() + 1));
    }
}
