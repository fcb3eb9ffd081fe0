//! What the command does with a daemon that is broken.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wandb_cred::clock::Clock;

use crate::TOKEN;
use crate::fake_daemon::{Answer, FakeDaemon, on, on_answer};

#[test]
fn an_empty_answer_broke_off() {
    broken("", 75, "broke off after 0 bytes");
}

#[test]
fn half_a_head_broke_off() {
    broken("HTTP/1.1 200 OK\r\ncontent-le", 75, "broke off after 27 bytes");
}

#[test]
fn half_a_body_broke_off() {
    broken(&good()[..good().len() - 9], 75, "broke off after");
}

#[test]
fn another_protocol_is_not_http() {
    broken("SSH-2.0-OpenSSH_9.2 wb_at_1\r\n", 69, "not HTTP");
}

#[test]
fn a_body_without_length_is_refused() {
    broken("HTTP/1.1 200 OK\r\n\r\nwb_at_1", 69, "without Content-Length");
}

#[test]
fn a_chunked_body_is_refused() {
    broken(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        69,
        "without Content-Length",
    );
}

#[test]
fn a_huge_length_is_refused() {
    broken("HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", 69, "an answer of 9999999999 bytes");
}

#[test]
fn a_line_without_end_is_not_http() {
    broken(&"x".repeat(3_000_000), 69, "not HTTP");
}

#[test]
fn a_head_without_end_is_not_http() {
    broken(&format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(100_000)), 69, "not HTTP");
}

#[test]
fn a_bare_token_is_not_json() {
    broken("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nwb_at_1", 69, "unexpected JSON at line 1 column 1");
}

#[test]
fn cut_json_is_unexpected() {
    broken("HTTP/1.1 200 OK\r\ncontent-length: 24\r\n\r\n{\"access_token\":\"wb_at_1", 69, "unexpected JSON");
}

#[test]
fn a_status_500_without_a_problem_is_named() {
    broken("HTTP/1.1 500 Oops\r\ncontent-length: 7\r\n\r\nwb_at_1", 69, "status 500 without a problem");
}

#[test]
fn a_redirect_is_not_followed() {
    broken("HTTP/1.1 302 Go\r\ncontent-length: 0\r\n\r\n", 69, "status 302 without a problem");
}

fn good() -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{TOKEN}", TOKEN.len())
}

/// An answer that is none says why, with its own exit code, and is not quoted.
fn broken(answer: &str, exit: i32, why: &str) {
    let answer = Answer::Bytes(answer.as_bytes().to_vec());
    let ran = FakeDaemon::start(vec![on_answer("GET", answer)]).run(&["token"]);
    assert_eq!((ran.code, ran.out.as_str()), (exit, ""), "{}", ran.err);
    assert!(ran.err.contains(why), "{}", ran.err);
    assert!(ran.err.contains("\n  next: "), "{}", ran.err);
    assert!(!ran.err.contains("wb_at_1"), "a token in an error: {}", ran.err);
}

#[test]
fn tokens_that_are_no_words_are_refused() {
    for token in ["", "a b", "a\\nX-Evil: 1", "a'; rm -rf ~ #", "é"] {
        let body = TOKEN.replace("wb_at_1", token);
        let ran = FakeDaemon::start(vec![on("GET", 200, body)]).run(&["token", "--format", "header"]);
        assert_eq!((ran.code, ran.out.as_str()), (78, ""), "{token}");
        assert!(ran.err.contains("no usable access token"), "{}", ran.err);
    }
}

#[test]
fn text_from_the_daemon_does_not_steer_the_terminal() {
    let body =
        r#"{"type":"locked","title":"T","status":423,"detail":"a\u001b]0;owned\u0007b","next":"x\u001b[2J"}"#;
    let ran = FakeDaemon::start(vec![on("GET", 423, body)]).run(&["token"]);
    assert!(!ran.err.contains('\x1b') && !ran.err.contains('\x07'), "{:?}", ran.err);
}

#[test]
fn a_daemon_that_hangs_costs_a_bounded_time() {
    costs_a_bounded_time(Answer::Hang);
}

#[test]
fn a_daemon_that_drips_costs_a_bounded_time() {
    costs_a_bounded_time(Answer::Drip);
}

fn costs_a_bounded_time(answer: Answer) {
    let daemon = FakeDaemon::start(vec![on_answer("GET", answer)]);
    let start = Clock::system().now().boot;
    let ran = daemon.run(&["token", "--wait", "0"]);
    let took = Clock::system().now().boot - start;
    assert_eq!((ran.code, ran.out.as_str()), (75, ""), "{}", ran.err);
    assert!(ran.err.contains("did not answer within 5 s"), "{}", ran.err);
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn a_daemon_that_restarts_meanwhile_is_asked_again_a_few_times() {
    let good = Answer::Json(200, TOKEN.into());
    let daemon = FakeDaemon::start(vec![on_answer(
        "GET",
        Answer::CloseFirst(Arc::new(Mutex::new(2)), Box::new(good.clone())),
    )]);
    assert_eq!(daemon.run(&["token"]).out, "wb_at_1\n");
    assert_eq!(daemon.requests().len(), 3);
    let daemon = FakeDaemon::start(vec![on_answer(
        "GET",
        Answer::CloseFirst(Arc::new(Mutex::new(9)), Box::new(good)),
    )]);
    assert_eq!(daemon.run(&["token"]).code, 75);
    assert_eq!(daemon.requests().len(), 3);
}

#[test]
fn a_dead_socket_is_no_daemon() {
    let folder = tempfile::tempdir().expect("temp dir");
    let socket = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let ran = crate::ran(crate::bare(folder.path(), &["status"]).env("WANDB_CRED_SOCKET", &socket));
    assert_eq!(ran.code, 69);
    assert!(ran.err.contains("no daemon answers at"), "{}", ran.err);
    let long = format!("/{}", "x".repeat(200));
    let ran = crate::ran(crate::bare(folder.path(), &["status"]).env("WANDB_CRED_SOCKET", long));
    assert_eq!(ran.code, 78);
    assert!(ran.err.contains("a socket's path can have"), "{}", ran.err);
}
