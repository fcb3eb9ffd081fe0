//! The doctor with a daemon: the daemon looks, and a visit costs it nothing that it keeps.

use std::process::Command;

use serde_json::{Value, json};

use super::world::World;

fn curl(world: &World, path: &str) -> (u16, Value) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(world.path("run/wandb-cred/wandb-cred.sock"))
        .expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).expect("JSON"))
}

fn stats(world: &World) -> Value {
    let url = world.base_url.as_deref().expect("a sandbox");
    let text = super::world::get(url, "/sandbox/stats");
    serde_json::from_str(text.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
}

#[test]
fn the_daemon_looks_and_spends_one_exchange_however_often_it_is_asked() {
    let mut world = World::new();
    world.set_up();
    world.daemon();
    for _ in 0..3 {
        let visit = world.doctor(&["--json"]);
        assert_eq!((visit.steps("fail").len(), visit.steps("warn").len()), (0, 0), "{}", visit.out);
        assert!(visit.said("daemon").contains("answers: version"), "{}", visit.out);
        assert!(visit.said("exchange").contains("the daemon holds an access token"), "{}", visit.out);
    }
    let exchanges = &stats(&world)["exchanges"];
    assert_eq!(exchanges["by_outcome"], json!({ "ok": 1 }), "{exchanges}");
}

#[test]
fn a_fault_is_found_through_the_daemon_too() {
    for (audience, subject, step, words) in [
        ("other", "svc-train", "audience", "other"),
        ("acme", "svc-unknown", "exchange", "Settings > Service accounts"),
    ] {
        let mut world = World::new();
        world.claims["aud"] = json!(audience);
        world.claims["sub"] = json!(subject);
        world.set_up();
        world.daemon();
        let visit = world.doctor(&["--json"]);
        assert_eq!(visit.steps("fail"), [step], "{}", visit.out);
        assert_eq!(visit.exit, Some(78));
        assert!(visit.said(step).contains(words), "{}", visit.out);
    }
}

#[test]
fn the_route_answers_and_names_unknown_profiles() {
    let mut world = World::new();
    world.set_up();
    world.daemon();
    let (status, doctor) = curl(&world, "/v1/doctor?profile=work");
    assert_eq!(
        (status, &doctor["profile"], &doctor["verdict"], &doctor["exit"]),
        (200, &json!("work"), &json!("ok"), &json!(0))
    );
    let (status, problem) = curl(&world, "/v1/doctor?profile=wrok");
    assert_eq!((status, &problem["type"]), (404, &json!("no-such-profile")));
}

#[test]
fn many_who_ask_at_once_share_a_visit_and_tokens_are_served_meanwhile() {
    let mut world = World::new();
    world.set_up();
    world.daemon();
    assert_eq!(curl(&world, "/v1/token").0, 200);
    super::world::post(
        world.base_url.as_deref().expect("a sandbox"),
        "/sandbox/faults",
        r#"{"api":{"delay_ms":1500}}"#,
    );
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| curl(&world, "/v1/doctor").0)).collect();
        for _ in 0..20 {
            assert_eq!(curl(&world, "/v1/token").0, 200);
        }
        assert!(!asking.iter().all(|thread| thread.is_finished()), "tokens came while a visit was under way");
        for thread in asking {
            assert_eq!(thread.join().expect("answered"), 200);
        }
    });
    // The first visit's two questions; those who asked meanwhile share it.
    assert_eq!(stats(&world)["graphql"]["Viewer"], json!(1), "{}", stats(&world));
}

#[test]
fn an_environment_that_the_command_set_up_raises_no_alarm() {
    let mut world = World::new();
    world.set_up();
    world.daemon();
    let doctor = format!("{} doctor --json", env!("CARGO_BIN_EXE_wandb-cred"));
    let mut command: Command =
        world.command(env!("CARGO_BIN_EXE_wandb-cred"), &["exec", "--", "sh", "-c", &doctor]);
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {output:?}"));
    assert_eq!((&json["verdict"], output.status.code()), (&json!("ok"), Some(0)), "{text}");
    assert!(text.contains("set up by wandb-cred"), "{text}");
}

/// `doctor --alone` says ok, the daemon fails, and only this says why.
#[test]
fn what_only_the_shell_or_only_the_daemon_has_is_said() {
    let mut world = World::new();
    world.set_up();
    world.env.insert("SSL_CERT_DIR", "/etc/ssl/certs".to_owned());
    world.daemon();
    world.env.clear();
    world.env.insert("NO_PROXY", "planted".to_owned());
    let visit = world.doctor(&["--json"]);
    assert_eq!((visit.exit, visit.steps("warn")), (Some(0), vec!["daemon".to_owned()]), "{}", visit.out);
    assert!(
        visit.out.contains("NO_PROXY is set in this shell, and the daemon does not have it"),
        "{}",
        visit.out
    );
    assert!(visit.out.contains("the daemon has SSL_CERT_DIR, and this shell does not"), "{}", visit.out);
    assert!(!visit.out.contains("planted"), "{}", visit.out);
}

#[test]
fn an_entry_in_netrc_for_the_server_is_said() {
    let mut world = World::new();
    world.set_up();
    world.write(".netrc", "machine 127.0.0.1 login user password planted\n");
    let visit = world.doctor(&["--json"]);
    assert_eq!(visit.exit, Some(0), "{}", visit.out);
    assert!(visit.said("sdk-environment").contains("has an entry for 127.0.0.1"), "{}", visit.out);
    assert!(!visit.out.contains("planted"), "{}", visit.out);
}
