//! Many callers at a cold daemon: one exchange, one token, nobody fails.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::setup::{COMMAND, Home, Ran, Sandbox, now, raise_file_limit};
use crate::talk::Client;

const CALLERS: usize = 512;

#[test]
fn hundreds_of_processes_at_a_cold_daemon_cause_one_exchange() {
    raise_file_limit();
    let sandbox = Sandbox::start(&["--exchange-delay", "200"]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    // All wait on one pipe, and go when it is closed.
    let (gate, open) = std::io::pipe().expect("a pipe");
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let mut command: Command = home.program("/bin/sh", &["-c", "read _; exec \"$@\"", "sh", COMMAND]);
            command.arg("token").stdin(gate.try_clone().expect("a descriptor"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a caller starts")
        })
        .collect();
    drop(gate);
    let start = now();
    drop(open);
    let mut tokens = BTreeSet::new();
    for caller in callers {
        let ran = Ran::of(&caller.wait_with_output().expect("a caller ends"));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "a caller failed");
        tokens.insert(ran.out);
    }
    println!("{CALLERS} processes: {:?} in all", now() - start);
    assert_eq!(tokens.len(), 1, "all have the same token");
    assert_eq!(sandbox.exchanges(), 1);
    let token = tokens.pop_first().expect("one");
    assert_eq!(sandbox.control().takes(token.trim()), Some(true));
    assert_eq!(daemon.profile("work")["exchanges"], 1);
}

#[tokio::test]
async fn hundreds_of_connections_wait_for_the_same_exchange() {
    raise_file_limit();
    let sandbox = Sandbox::start(&["--exchange-delay", "500"]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let client = Client::new(&daemon.socket);
        callers.spawn(async move { client.get("/v1/token").await.expect("an answer") });
    }
    let mut tokens = BTreeSet::new();
    while let Some(answer) = callers.join_next().await {
        let answer = answer.expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.text());
        tokens.insert(answer.json()["access_token"].as_str().expect("a token").to_owned());
    }
    assert_eq!((tokens.len(), sandbox.exchanges()), (1, 1));
}
