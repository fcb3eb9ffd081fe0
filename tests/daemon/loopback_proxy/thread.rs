//! What streams through the proxy is moved by a thread of its own, so that callers of the socket do not wait for it.

use std::io::Write as _;

use super::client::{World, read};
use crate::setup::Daemon;

/// The number of the proxy's thread, if the daemon has one.
pub(crate) fn of_proxy(daemon: &Daemon) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    tasks.flatten().find_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        (name.trim() == "proxy").then(|| task.file_name().to_str()?.parse().ok())?
    })
}

/// What a thread has used of the CPU, in hundredths of a second.
fn cpu(daemon: &Daemon, thread: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/task/{thread}/stat", daemon.pid())).expect("there");
    let fields = stat.rsplit(')').next().expect("a name").split_ascii_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_body_is_moved_by_the_proxys_own_thread() {
    let world = World::new();
    world.proxy.post("/x", &[], b"");
    let own = of_proxy(&world.daemon).expect("it has been asked for");
    let main = world.daemon.pid();
    let before = (cpu(&world.daemon, own), cpu(&world.daemon, main));
    let mut stream = world.proxy.connect();
    let size = 128 * 1024 * 1024;
    let head = world.proxy.head("PUT /files/x", &[("Content-Length", &size.to_string())]);
    stream.write_all(head.as_bytes()).expect("sent");
    let piece = vec![b'x'; 1024 * 1024];
    for _ in 0..size / piece.len() {
        stream.write_all(&piece).expect("sent");
    }
    assert_eq!(read(&mut stream, false).expect("an answer").status, 200);
    let (moved, other) = (cpu(&world.daemon, own) - before.0, cpu(&world.daemon, main) - before.1);
    assert!(moved > 2 * other, "the thread used {moved} hundredths, the daemon's own {other}");
}
