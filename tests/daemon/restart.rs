//! Restarts and upgrades while everybody goes on asking: no caller fails, and no exchange is made for it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::setup::{COMMAND, DAEMON, Daemon, Home, Sandbox, now, ran};
use crate::talk;

const RESTARTS: usize = 10;

/// Runs `call` so many times a second on several threads while `restarts` runs; what failed, and how many did not.
fn under_load(
    per_second: u64,
    call: impl Fn() -> Result<String, String> + Sync,
    restarts: impl FnOnce(),
) -> (Vec<String>, usize) {
    const THREADS: u64 = 8;
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    let pause = Duration::from_millis(1000 * THREADS / per_second);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let next = now() + pause;
                    match call() {
                        Ok(_) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failed.lock().expect("no panic").push(error),
                    }
                    thread::sleep(next.saturating_sub(now()));
                }
            });
        }
        // Also when `restarts` panics: else the threads, and with them the test, would go on for ever.
        let _end = End(&over);
        restarts();
    });
    (failed.into_inner().expect("no panic"), served.into_inner())
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ends the daemon and starts the next one, as a service manager does for `restart`.
fn restart(daemon: &mut Daemon, start: impl Fn() -> Daemon) {
    thread::sleep(Duration::from_millis(150));
    daemon.signal(Signal::TERM);
    assert!(daemon.ended(20).success());
    *daemon = start();
}

#[test]
fn under_socket_activation_nobody_notices_a_restart() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    fs::DirBuilder::new().mode(0o700).create(home.path("run")).expect("made");
    let listener = UnixListener::bind(home.socket()).expect("bound");
    let pass = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let start = || {
        let mut command = home.program("/bin/sh", &["-c", pass, "sh", DAEMON, "run"]);
        home.launch(command.stdin(OwnedFd::from(listener.try_clone().expect("a descriptor"))))
    };
    let mut daemon = start();
    let token = daemon.token("");
    // Each on a connection of its own, without a second try: as curl.
    let ask = || {
        let stream = UnixStream::connect(home.socket()).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let answer = talk::ask(stream, "GET", "/v1/token", &[], "").map_err(|error| error.to_string())?;
        if answer.status == 200 && answer.json()["access_token"] == token.as_str() {
            Ok(String::new())
        } else {
            Err(answer.text())
        }
    };
    let (failed, served) = under_load(200, ask, || (0..RESTARTS).for_each(|_| restart(&mut daemon, start)));
    println!("{served} requests over {RESTARTS} restarts");
    assert_eq!(failed, [] as [String; 0], "of {served}");
    assert!(served > 200, "{served}");
    assert_eq!(sandbox.exchanges(), 1);
}

#[test]
fn in_a_plain_restart_the_command_waits_for_the_next_daemon() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let start = || home.launch(&mut home.program(DAEMON, &["run"]));
    let mut daemon = home.daemon();
    daemon.token("");
    let ask = || {
        let answer = ran(home.program(COMMAND, &["token"]).stderr(Stdio::piped()));
        if answer.code == Some(0) && answer.err.is_empty() {
            Ok(answer.out)
        } else {
            Err(format!("{answer:?}"))
        }
    };
    let (failed, served) = under_load(100, ask, || (0..RESTARTS).for_each(|_| restart(&mut daemon, start)));
    println!("{served} commands over {RESTARTS} restarts");
    assert_eq!(failed, [] as [String; 0], "of {served}");
    assert!(served > 50, "{served}");
    assert_eq!(sandbox.exchanges(), 1, "a daemon was started on demand, or a token was not taken over");
    let others = fs::read_dir(home.path("run")).expect("there").flatten();
    let others: Vec<_> = others
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with("user-"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}
