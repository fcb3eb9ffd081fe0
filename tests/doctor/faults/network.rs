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
        78,
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
        78,
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
    assert!(said.contains("HTTPS_PROXY is in use") && said.contains("NO_PROXY"), "{said}");
    assert!(!format!("{}{}", visit.out, visit.err).contains("planted"), "{}", visit.out);
}

#[test]
fn warns_of_a_proxy_that_is_no_url() {
    let visit = visit_through("::");
    assert_eq!(visit.steps("warn"), ["proxy"], "{}", visit.out);
    let said = visit.said("proxy");
    assert!(said.contains("not to a proxy URL") && said.contains("http://proxy.example:3128"), "{said}");
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
