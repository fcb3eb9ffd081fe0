//! The daemon at the socket, and the service that starts it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::{fails, warns};
use crate::world::World;

#[test]
fn reports_something_else_at_the_socket() {
    fails(
        |world| listen(world, Some("SSH-2.0-OpenSSH\r\n\r\n")),
        &["daemon"],
        69,
        &["is not a wandb-credd", "Restart it"],
    );
}

#[test]
fn reports_a_daemon_that_hangs() {
    fails(|world| listen(world, None), &["daemon"], 69, &["did not answer within", "restart"]);
}

#[test]
fn warns_of_a_daemon_of_an_older_version() {
    warns(
        |world| {
            let body = json!({ "version": "0.0.1", "pid": 7, "started_at": "2026-01-01T00:00:00Z", "socket": "/s", "config": null, "profiles": [] });
            let body = body.to_string();
            let text = format!("HTTP/1.1 200 x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            listen(world, Some(Box::leak(text.into_boxed_str())));
        },
        &["daemon"],
        &["version 0.0.1", "kill 7"],
    );
}

#[test]
fn reports_a_unit_whose_program_is_gone() {
    fails(
        |world| {
            world.write("run/systemd/private", "");
            world.write(
                ".config/systemd/user/wandb-cred.service",
                "[Service]\nExecStart=/opt/old/wandb-credd run\n",
            );
        },
        &["service"],
        78,
        &["/opt/old/wandb-credd", "wandb-cred service install"],
    );
}

#[test]
fn reports_a_unit_that_failed() {
    fails(
        |world| {
            world.write("run/systemd/private", "");
            world.write(".config/systemd/user/wandb-cred.service", "[Service]\nExecStart=/bin/sh run\n");
            world.program("systemctl", "echo failed");
        },
        &["service"],
        69,
        &["socket failed", "journalctl --user -u wandb-cred.service", "reset-failed"],
    );
}

#[test]
fn reports_a_socket_unit_that_was_stopped() {
    fails(
        |world| {
            world.write("run/systemd/private", "");
            world.write(".config/systemd/user/wandb-cred.service", "[Service]\nExecStart=/bin/sh run\n");
            world.program("systemctl", "echo inactive");
        },
        &["service"],
        69,
        &["its socket is inactive", "enable --now wandb-cred.socket"],
    );
}

/// Something at the daemon's socket that says the same to everybody, or nothing.
fn listen(world: &World, says: Option<&'static str>) {
    world.folder("run/wandb-cred", 0o700);
    let listener = UnixListener::bind(world.path("run/wandb-cred/wandb-cred.sock")).expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let read = stream.read(&mut [0; 4096]);
                match says {
                    Some(text) => drop(stream.write_all(text.as_bytes())),
                    // Until the other side has had enough.
                    None => drop(read.and_then(|_| stream.read(&mut [0; 1]))),
                }
            });
        }
    });
}
