//! The way to the W&B server.

use super::{closed_port, fails};
use crate::stand_in::{CERTIFICATE, StandIn, answer};
use crate::world::{Visit, World};

#[test]
fn reports_the_address_of_a_page() {
    fails(
        |world| {
            let wandb = world.own_wandb();
            world.base_url = Some(format!("{}/home", wandb.url));
        },
        &["server"],
        78,
        &["a page", "set base-url = \"http://127.0.0.1:"],
    );
}

#[test]
fn reports_a_certificate_of_an_unknown_authority() {
    fails(
        |world| drop(world.wandb_at(StandIn::start_tls())),
        &["server"],
        75,
        &["certificate", "SSL_CERT_FILE"],
    );
}

#[test]
fn reports_a_certificate_for_another_host() {
    fails(
        |world| {
            let wandb = world.wandb_at(StandIn::start_tls());
            let ca = world.write("ca.pem", CERTIFICATE);
            world.env.insert("SSL_CERT_FILE", ca);
            world.base_url = Some(wandb.url.replace("localhost", "127.0.0.1"));
        },
        &["server"],
        75,
        &["for another host", "base-url"],
    );
}

#[test]
fn reports_a_redirect() {
    fails(
        |world| {
            world.own_wandb().on(
                "/graphql",
                answer(302, "").header("Location", "https://login.example/x?token=planted-query"),
            );
        },
        &["server"],
        78,
        &["redirects to https://login.example", "base-url"],
    );
}

#[test]
fn reports_a_page_instead_of_the_api() {
    fails(
        |world| {
            world
                .own_wandb()
                .on("/graphql", answer(200, "<html>").header("Content-Type", "text/html; charset=utf-8"));
        },
        &["server"],
        78,
        &["text/html", "base-url"],
    );
}

#[test]
fn reports_a_server_that_is_busy() {
    fails(
        |world| world.own_wandb().on("/graphql", answer(503, "no")),
        &["server"],
        75,
        &["status 503", "try again"],
    );
}

#[test]
fn reports_that_nothing_listens() {
    fails(|world| world.base_url = Some(closed_port()), &["server"], 75, &["refused", "port included"]);
}

#[test]
fn reports_a_proxy_that_wants_a_password() {
    fails(
        |world| world.own_wandb().on("/graphql", answer(407, "no")),
        &["server"],
        78,
        &["status 407", "NO_PROXY"],
    );
}

#[test]
fn reports_a_proxy_that_is_gone() {
    let proxy = format!("http://u:planted-password@{}", closed_port().replace("http://", ""));
    let visit = visit_through(&proxy);
    let said = visit.said("server");
    assert!(
        said.contains("is that the proxy's address") && said.contains("export NO_PROXY=wandb.invalid"),
        "{said}"
    );
    assert!(!format!("{}{}", visit.out, visit.err).contains("planted"), "{}", visit.out);
}

#[test]
fn warns_of_a_proxy_that_is_no_url() {
    let visit = visit_through("::");
    assert_eq!(visit.steps("warn"), ["proxy"], "{}", visit.out);
    let said = visit.said("proxy");
    assert!(said.contains("not to a proxy URL") && said.contains("http://proxy.example:3128"), "{said}");
}

/// A proxy that answers this to every CONNECT, and counts them.
fn proxy(status: &'static str) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound").to_string();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let read = stream.read(&mut [0; 4096]).unwrap_or_default();
            counter.fetch_add(usize::from(read > 0), std::sync::atomic::Ordering::Relaxed);
            let _ = stream.write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
    });
    (at, count)
}

#[test]
fn reports_a_proxy_that_wants_a_password_for_a_tunnel() {
    let (at, count) = proxy("407");
    let visit = visit_through(&format!("http://u:planted-password@{at}"));
    let said = visit.said("server");
    for words in ["a user name and a password (407)", &at, "export NO_PROXY=wandb.invalid"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        visit.said("proxy").contains(&format!("HTTPS_PROXY sends requests to W&B through {at}")),
        "{}",
        visit.out
    );
    assert!(count.load(std::sync::atomic::Ordering::Relaxed) > 0);
    assert!(!visit.out.contains("planted"), "{}", visit.out);
}

#[test]
fn reports_a_proxy_that_lets_nothing_through() {
    let (at, _) = proxy("403");
    let said = visit_through(&format!("http://{at}")).said("server");
    assert!(said.contains("let wandb.invalid through"), "{said}");
}

/// What the proxy step says is what happens: a proxy that is named is asked, and one that is not is left alone.
#[test]
fn the_proxy_that_is_named_is_the_one_that_is_used() {
    for (variable, scheme, except, used) in [
        ("HTTPS_PROXY", "", None, true),
        ("https_proxy", "http://", None, true),
        ("ALL_PROXY", "socks5h://", None, true),
        ("all_proxy", "", Some(("NO_PROXY", "WANDB.INVALID")), false),
        ("HTTPS_PROXY", "http://", Some(("NO_PROXY", "other.example, .invalid")), false),
        ("HTTPS_PROXY", "http://", Some(("no_proxy", "*")), false),
        ("HTTPS_PROXY", "http://", Some(("NO_PROXY", "notwandb.invalid,10.0.0.0/8")), true),
    ] {
        let (at, count) = proxy("403");
        let mut world = World::new();
        world.base_url = Some("https://wandb.invalid".into());
        world.env.insert(variable, format!("{scheme}{at}"));
        if let Some((name, value)) = except {
            world.env.insert(name, value.into());
        }
        world.set_up();
        let said = world.doctor(&["--json"]).said("proxy");
        assert_eq!(
            count.load(std::sync::atomic::Ordering::Relaxed) > 0,
            used,
            "{variable} {scheme} {except:?}: {said}"
        );
        assert_eq!(said.contains(&format!("{variable} sends requests to W&B through {at}")), used, "{said}");
    }
}

#[test]
fn an_address_in_an_exempt_network_needs_no_proxy() {
    for (network, used) in [("192.0.2.0/24", false), ("198.51.100.0/24", true)] {
        let (at, count) = proxy("403");
        let mut world = World::new();
        // For documentation (RFC 5737): nothing is there.
        world.base_url = Some("https://192.0.2.1".into());
        world.env.insert("HTTPS_PROXY", format!("http://{at}"));
        world.env.insert("NO_PROXY", network.into());
        world.keys = "[profile.work.provider.file]\npath = \"/nonexistent\"\n".into();
        world.provider = String::new();
        world.set_up();
        let said = world.doctor(&["--json"]).said("proxy");
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed) > 0, used, "{said}");
        assert_eq!(said.contains("NO_PROXY exempts the server"), !used, "{said}");
    }
}

#[test]
fn warns_of_an_empty_variable_that_hides_another() {
    let mut world = World::new();
    world.base_url = Some("https://wandb.invalid".into());
    world.env.insert("HTTPS_PROXY", String::new());
    world.env.insert("https_proxy", "http://127.0.0.1:9".into());
    world.set_up();
    let visit = world.doctor(&["--json"]);
    assert!(visit.said("proxy").contains("an empty variable goes before it"), "{}", visit.out);
}

/// A server of another machine, since loopback is never proxied; its name leads nowhere.
fn visit_through(proxy: &str) -> Visit {
    let mut world = World::new();
    world.base_url = Some("https://wandb.invalid".into());
    world.env.insert("HTTPS_PROXY", proxy.into());
    world.set_up();
    let visit = world.doctor(&["--json"]);
    assert!(visit.steps("fail").iter().any(|step| step == "server"), "{}", visit.out);
    assert_eq!(visit.exit, Some(78), "the issuer of the test is loopback, which no server elsewhere reaches");
    visit
}
