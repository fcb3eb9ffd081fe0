//! The way to the W&B server.

use super::{closed_port, fails, warns};
use crate::stand_in::{CERTIFICATE, StandIn, answer};

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
    fails(
        |world| {
            let wandb = world.own_wandb();
            world.base_url = Some(wandb.url.replace("127.0.0.1", "localhost"));
            world.env.insert(
                "HTTP_PROXY",
                format!("http://u:planted-password@{}", closed_port().replace("http://", "")),
            );
            world.env.insert("NO_PROXY", "127.0.0.1".into());
        },
        &["server"],
        75,
        &["HTTP_PROXY is in use", "NO_PROXY"],
    );
}

#[test]
fn warns_of_a_proxy_that_is_no_url() {
    warns(
        |world| drop(world.env.insert("HTTP_PROXY", "::".into())),
        &["proxy"],
        &["not to a proxy URL", "http://proxy.example:3128"],
    );
}
