//! No wait is silent, to a person; a program hears nothing of it.

use crate::fake_daemon::{Answer, FakeDaemon, on, on_answer};
use crate::status;
use crate::terminal::Terminal;

#[test]
fn a_wait_is_shown_on_a_terminal_with_what_keeps_it() {
    let failing = status::profile("work", true, "null")
        .replace(r#""last_error":null"#, r#""last_error":"idp.example refuses connections""#);
    let daemon = FakeDaemon::start(vec![
        on_answer("GET /v1/token", Answer::Hang),
        on("GET /v1/status", 200, status::answer(&[failing])),
    ]);
    let line = format!("exec {} token", env!("CARGO_BIN_EXE_wandb-cred"));
    let terminal = Terminal::start(&daemon.command(&[]), 80, &line);
    terminal.shows("waiting for a token (Ctrl-C ends): idp.example refuses connections");
}

#[test]
fn what_is_quick_shows_nothing_more() {
    let daemon = crate::token_daemon();
    let line = format!("exec {} token", env!("CARGO_BIN_EXE_wandb-cred"));
    let mut terminal = Terminal::start(&daemon.command(&[]), 80, &line);
    assert_eq!(terminal.ends(), 0);
    assert_eq!(terminal.shows("wb_at_1"), terminal.text().len());
    assert!(!terminal.text().contains("waiting"), "{:?}", terminal.text());
}
