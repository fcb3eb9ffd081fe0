//! A file that somebody else rotates: the Kubernetes way, and the careless way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::setup::{Home, Ran, Sandbox, now, until};

/// Puts a new projection in place as the kubelet does: a folder, and a symlink renamed over the old one.
fn project(volume: &Path, generation: &str, jwt: &str) {
    let folder = volume.join(format!("..{generation}"));
    fs::create_dir(&folder).expect("made");
    fs::write(folder.join("token"), jwt).expect("written");
    let old = fs::read_link(volume.join("..data")).ok();
    symlink(format!("..{generation}"), volume.join("..data_tmp")).expect("linked");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("renamed");
    match old {
        Some(old) => fs::remove_dir_all(volume.join(old)).expect("removed"),
        None => symlink("..data/token", volume.join("token")).expect("linked"),
    }
}

#[test]
fn a_symlink_swap_is_followed_at_the_next_exchange() {
    let sandbox = Sandbox::start(&["--token-life", "8"]);
    let control = sandbox.control();
    let home = Home::new("");
    let volume = home.path("volume");
    fs::create_dir(&volume).expect("made");
    project(&volume, "2026_01", &control.mint(""));
    home.write_config(&sandbox.file_profile("work", &volume.join("token")));
    let daemon = home.daemon();
    let first = daemon.token("");
    project(&volume, "2026_02", &control.mint(""));
    // W&B takes each identity token once, so a second access token proves that the second one was read.
    let start = now();
    until("another token", 20, || {
        let answer = daemon.get("/v1/token?wait=0");
        assert_eq!(answer.status, 200, "a gap after {:?}: {}", now() - start, answer.text());
        (answer.json()["access_token"] != first.as_str()).then_some(())
    });
    assert!(control.stats()["exchanges"]["by_outcome"]["jti-used"].is_null(), "{}", control.stats());
}

#[test]
fn a_half_written_file_is_waited_for() {
    let sandbox = Sandbox::start(&[]);
    sandbox.control().settings(&serde_json::json!({ "replay_check": false }));
    let jwt = sandbox.control().mint("");
    let (head, _) = jwt.rsplit_once('.').expect("three parts");
    for half in [&jwt[..10], head, &head[..head.len() - 7]] {
        let home = Home::new("");
        let path = home.write("jwt", "");
        home.write_config(&sandbox.file_profile("work", &path));
        let daemon = home.daemon();
        fs::write(&path, half).expect("half is written");
        let whole = {
            let (path, jwt) = (path.clone(), jwt.clone());
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(300));
                fs::write(path, jwt).expect("written");
            })
        };
        let start = now();
        assert!(daemon.token("wait=10").starts_with("wb_at_"));
        println!("half a file of {} bytes: served after {:?}", half.len(), now() - start);
        assert!(now() - start < Duration::from_secs(4), "took {:?}", now() - start);
        whole.join().expect("no panic");
    }
}

#[test]
fn the_source_is_only_read() {
    use std::os::unix::fs::MetadataExt as _;
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let jwt = home.write("jwt", &sandbox.control().mint(""));
    let before = fs::metadata(&jwt).expect("there");
    home.write_config(&sandbox.file_profile("work", &jwt));
    let daemon = home.daemon();
    daemon.token("");
    let after = fs::metadata(&jwt).expect("there");
    assert_eq!(
        (before.ino(), before.mtime_nsec(), before.mode()),
        (after.ino(), after.mtime_nsec(), after.mode())
    );
}

fn need(home: &Home, arguments: &[&str]) -> Ran {
    home.run(&[&["token", "--need", "72h"], arguments].concat())
}

#[test]
fn a_file_that_nobody_was_seen_to_replace_cannot_promise_three_days() {
    let sandbox = Sandbox::start(&["--jwt-life", "20"]);
    let home = Home::new("");
    let jwt = home.write("jwt", &sandbox.control().mint(""));
    home.write_config(&sandbox.file_profile("work", &jwt));
    let daemon = home.daemon();
    for refused in [need(&home, &[]), home.run(&["exec", "--need", "72h", "--", "echo", "ran"])] {
        assert_eq!((refused.code, refused.out.as_str()), (Some(78), ""), "{}", refused.err);
        let words = format!("nobody has been seen to replace the JWT in {}", jwt.display());
        assert!(refused.err.contains(&words) && refused.err.contains("what renews it?"), "{}", refused.err);
    }
    assert_eq!(home.run(&["token", "--need", "1s"]).code, Some(0));
    let status = home.run(&["status"]).out;
    assert!(status.contains("\noutlook: until ") && status.contains("what renews it?"), "{status}");

    // Told by the daemon that takes over, too.
    drop(daemon);
    let daemon = home.daemon();
    assert_eq!(need(&home, &[]).code, Some(78));
    home.write("jwt", &sandbox.control().mint(""));
    assert_eq!(daemon.ask("POST", "/v1/refresh", "").expect("an answer").status, 200);
    let served = need(&home, &[]);
    assert_eq!(served.code, Some(0), "{}", served.err);
    assert!(daemon.profile("work")["outlook"].is_null());
}

#[test]
fn a_volume_of_the_kubelet_and_a_command_promise_what_they_can_keep() {
    let sandbox = Sandbox::start(&["--jwt-life", "20"]);
    let home = Home::new("");
    let volume = home.path("volume");
    fs::create_dir(&volume).expect("made");
    project(&volume, "2026_01", &sandbox.control().mint(""));
    home.write_config(&format!(
        "{}{}",
        sandbox.file_profile("volume", &volume.join("token")),
        sandbox.profile("command")
    ));
    let _daemon = home.daemon();
    for profile in ["volume", "command"] {
        let served = need(&home, &["--profile", profile]);
        assert_eq!(served.code, Some(0), "{profile}: {}", served.err);
    }
}
