//! A proxy that the environment names: what is for this machine does not go there.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::setup::{DAEMON, Home, Sandbox};

/// Counts who comes, and answers nobody.
fn trap() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let came = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&came);
    thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (format!("http://{address}"), came)
}

#[test]
fn loopback_is_never_proxied_however_the_variable_is_spelled() {
    let sandbox = Sandbox::start(&[]);
    let port = sandbox.url.rsplit(':').next().expect("a port");
    let (proxy, came) = trap();
    for host in ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"] {
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"] {
            let home = Home::new("");
            let jwt = home.write("jwt", &sandbox.control().mint(""));
            let profile = sandbox.file_profile("work", &jwt);
            home.write_config(&profile.replace(&sandbox.url, &format!("http://{host}:{port}")));
            let daemon = home.daemon_of(home.program(DAEMON, &["run"]).env(variable, &proxy));
            assert!(daemon.token("").starts_with("wb_at_"), "{variable} {host}");
            assert_eq!(came.load(Ordering::Relaxed), 0, "{variable} {host}: the JWT went to the proxy");
        }
    }
}

#[test]
fn what_is_for_the_network_goes_to_the_proxy() {
    let (proxy, came) = trap();
    let home = Home::new("");
    let jwt = home.write("jwt", &Sandbox::start(&[]).control().mint(""));
    home.write_config(&format!(
        "[profile.work]\nbase-url = \"https://wandb.invalid\"\n[profile.work.provider.file]\npath = \"{}\"\n",
        jwt.display()
    ));
    let daemon = home.daemon_of(home.program(DAEMON, &["run"]).env("HTTPS_PROXY", &proxy));
    assert_ne!(daemon.get("/v1/token?wait=2").status, 200);
    assert_ne!(came.load(Ordering::Relaxed), 0, "the other test would see nothing either");
}
