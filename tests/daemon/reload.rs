//! SIGHUP and SIGTERM.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::setup::{DAEMON, Home, Sandbox, now, until};
use crate::talk::Client;

#[test]
fn a_reload_keeps_the_tokens_of_unchanged_profiles_and_renews_changed_ones() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&format!("{}{}", sandbox.profile("same"), sandbox.profile("other")));
    let daemon = home.daemon();
    let (same, other) = (daemon.token("profile=same"), daemon.token("profile=other"));
    assert_eq!(sandbox.exchanges(), 2);
    let changed = sandbox.profile("other").replace("audience = \"sandbox\"\n", "keep-warm = true\n");
    home.write_config(&format!("{}{changed}{}", sandbox.profile("same"), sandbox.profile("new")));
    daemon.signal(Signal::HUP);
    until("the new profile is there", 10, || {
        daemon.get("/v1/status").text().contains("\"new\"").then_some(())
    });
    assert_eq!(daemon.token("profile=same"), same);
    assert_ne!(daemon.token("profile=other"), other);
    assert_ne!(daemon.token("profile=new"), same);
    assert_eq!(sandbox.exchanges(), 4, "one more for the changed profile, one for the new one");
    home.write_config(&sandbox.profile("same"));
    daemon.signal(Signal::HUP);
    until("the others are gone", 10, || (daemon.get("/v1/token?profile=other").status == 404).then_some(()));
    assert_eq!((daemon.token(""), sandbox.exchanges()), (same, 4));
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let token = daemon.token("");
    for (count, wrong) in [
        "profile = 1\n".to_owned(),
        sandbox.profile("work").replace("audience", "audeince"),
        format!("{}[profile.bad]\nx = 1\n", sandbox.profile("work")),
        String::new(),
    ]
    .iter()
    .enumerate()
    {
        home.write_config(wrong);
        daemon.signal(Signal::HUP);
        until("the daemon says no", 10, || {
            (daemon.log().matches("the new configuration is wrong").count() == count + 1).then_some(())
        });
        assert_eq!(daemon.token(""), token, "{wrong}");
    }
    std::fs::remove_file(home.config()).expect("removed");
    daemon.signal(Signal::HUP);
    until("the daemon says no", 10, || {
        (daemon.log().matches("the new configuration is wrong").count() == 5).then_some(())
    });
    assert_eq!((daemon.token(""), sandbox.exchanges()), (token, 1));
}

#[test]
fn a_reload_makes_a_failed_profile_look_again_at_once() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let jwt = home.write("jwt", "no jwt");
    home.write_config(&sandbox.file_profile("work", &jwt));
    let daemon = home.daemon();
    for _ in 0..3 {
        assert_ne!(daemon.get("/v1/token?wait=0").status, 200);
    }
    home.write("jwt", &sandbox.control().mint(""));
    daemon.signal(Signal::HUP);
    let start = now();
    until("the mended profile serves", 20, || (daemon.get("/v1/token?wait=1").status == 200).then_some(()));
    assert!(now() - start < Duration::from_secs(3), "took {:?}", now() - start);
}

#[test]
fn reloads_from_the_first_moment_and_hundreds_of_them_do_no_harm() {
    for _ in 0..5 {
        let sandbox = Sandbox::start(&["--exchange-delay", "100"]);
        let home = Home::new(&sandbox.profile("work"));
        let mut daemon = home.launch(&mut home.program(DAEMON, &["run"]));
        until("the socket is there", 10, || home.socket().exists().then_some(()));
        let asking = {
            let socket = daemon.socket.clone();
            thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async { Client::new(&socket).get("/v1/token").await })
            })
        };
        for _ in 0..300 {
            daemon.signal(Signal::HUP);
            thread::sleep(Duration::from_millis(1));
        }
        let answer = asking.join().expect("no panic").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(daemon.is_running(), "a reload ended the daemon");
        assert_eq!(sandbox.exchanges(), 1);
    }
}

#[test]
fn a_stopping_daemon_finishes_what_it_was_asked() {
    let sandbox = Sandbox::start(&["--exchange-delay", "1200"]);
    let home = Home::new(&sandbox.profile("work"));
    let mut daemon = home.daemon();
    let asking = {
        let home = home.socket();
        thread::spawn(move || {
            let stream = std::os::unix::net::UnixStream::connect(home).expect("connected");
            crate::talk::ask(stream, "GET", "/v1/token", &[], "")
        })
    };
    until("the request is under way", 10, || (sandbox.control().stats()["mints"] == 1).then_some(()));
    let idle = std::os::unix::net::UnixStream::connect(&daemon.socket).expect("connected");
    let start = now();
    daemon.signal(Signal::TERM);
    let answer = asking.join().expect("no panic").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(daemon.ended(10).success());
    println!("drained in {:?}", now() - start);
    assert!(now() - start < Duration::from_secs(5));
    assert!(!home.socket().exists(), "the socket stayed");
    drop(idle);
}

#[test]
fn a_stop_with_nothing_to_do_is_quick_even_while_a_source_hangs() {
    let sandbox = Sandbox::start(&[]);
    sandbox.control().faults(&serde_json::json!({ "exchange": "hang" }));
    for (target, signal) in [("/healthz", Signal::TERM), ("/v1/token?wait=0", Signal::INT)] {
        let home = Home::new(&sandbox.profile("work"));
        let mut daemon = home.daemon();
        let _kept = std::os::unix::net::UnixStream::connect(&daemon.socket).expect("connected");
        daemon.get(target);
        let start = now();
        daemon.signal(signal);
        assert!(daemon.ended(10).success());
        assert!(now() - start < Duration::from_secs(2), "{target}: took {:?}", now() - start);
    }
}
