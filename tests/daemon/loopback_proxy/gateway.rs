//! An access gateway in front of W&B: what clients send through the proxy has the profile's headers, as the daemon's own
//! requests have.

use super::client::World;
use super::server::Server;
use crate::setup::until;

fn write(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
}

#[test]
fn the_profiles_headers_are_added_for_its_server_alone() {
    let traces = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("headers");
    write(&file, "CF-Access-Client-Id: ours\nCF-Access-Client-Secret: planted-secret\nX-Two: a\nX-Two: b\n");
    let world = World::with(&format!(
        "headers-file = {:?}\ntrace-url = \"{}\"",
        file.display().to_string(),
        traces.url
    ));
    let sent = world.proxy.post(
        "/echo",
        &[
            ("CF-Access-Client-Id", "the client's"),
            ("X-Own", "kept"),
            ("Connection", "CF-Access-Client-Secret"),
        ],
        b"row",
    );
    assert_eq!(sent.status, 200, "{}", sent.text());
    let seen = world.server.seen().pop().expect("a request");
    for (name, value) in
        [("cf-access-client-id", "ours"), ("cf-access-client-secret", "planted-secret"), ("x-own", "kept")]
    {
        assert_eq!(seen.header(name), Some(value), "{name}: {}", seen.head);
    }
    let both: Vec<_> = seen.head.lines().filter(|line| line.to_lowercase().starts_with("x-two:")).collect();
    assert_eq!(both.len(), 2, "{}", seen.head);
    assert_eq!(seen.head.to_lowercase().matches("cf-access-client-id").count(), 1);
    world.proxy.post("/traces/call/start", &[], b"{}");
    assert_eq!(traces.seen()[0].header("cf-access-client-secret"), None, "another server");

    // They can be changed while jobs run; where they cannot be read, the client is told to try again.
    write(&file, "CF-Access-Client-Id: next\n");
    until("the new ones are sent", 10, || {
        world.proxy.post("/echo", &[], b"row");
        let seen = world.server.seen().pop()?;
        (seen.header("cf-access-client-id") == Some("next")).then_some(())
    });
    write(&file, "planted-secret\n");
    until("the file is wrong", 10, || {
        let answered = world.proxy.post("/echo", &[], b"row");
        (answered.status == 503).then(|| {
            assert!(answered.message().contains("headers line 1"), "{}", answered.message());
            assert!(!answered.message().contains("planted"), "{}", answered.message());
        })
    });
    assert!(!world.daemon.log().contains("planted-secret"));
}
