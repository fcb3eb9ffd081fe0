//! `allow-plain-http`: a whole exchange with a W&B server without TLS, at an address that is not loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::setup::{Home, Sandbox};

/// A name of this machine that does not say so, as a W&B server within a cluster has one, and the addresses behind it.
fn own_name() -> (String, Vec<IpAddr>) {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let names = [hostname.trim(), "ip6-localhost", "ip6-loopback"];
    let behind = |name: &str| -> Vec<IpAddr> {
        (name, 0).to_socket_addrs().map(|found| found.map(|at| at.ip()).collect()).unwrap_or_default()
    };
    let private = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    };
    let found = names.into_iter().map(|name| (name.to_owned(), behind(name)));
    let mut usable = found.filter(|(name, ips)| {
        name.len() > 1 && *name != "localhost" && !ips.is_empty() && ips.iter().all(private)
    });
    usable.next().expect("this machine has a name (hostname, or ip6-localhost) that leads to it")
}

/// Passes each connection to `address` on to `to`, and counts them.
fn forward(address: IpAddr, to: String) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).expect("our own address");
    let port = listener.local_addr().expect("bound").port();
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let far = TcpStream::connect(&to).expect("the sandbox listens");
            let pairs = [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))];
            for (from, to) in pairs {
                let (from, to) = (from.expect("a copy"), to.expect("a copy"));
                thread::spawn(move || pass(from, to));
            }
        }
    });
    (port, count)
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..read]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn an_exchange_goes_by_plain_http_where_the_profile_allows_it_and_nowhere_else() {
    let sandbox = Sandbox::start(&[]);
    let (name, addresses) = own_name();
    let (port, connections) = forward(addresses[0], sandbox.url.trim_start_matches("http://").to_owned());
    let profile = |allowed: &str| {
        let whole = format!("base-url = \"http://{name}:{port}\"\n{allowed}");
        sandbox.profile("work").replacen(&format!("base-url = \"{}\"", sandbox.url), &whole, 1)
    };

    // Without a word, and with a word about another network: not one connection.
    for allowed in ["", "allow-plain-http = \"192.168.254.0/30\""] {
        let home = Home::new(&profile(allowed));
        let daemon = home.daemon();
        let answer = daemon.get("/v1/token");
        assert!(answer.status >= 500 && answer.text().contains("allow-plain-http"), "{}", answer.text());
    }
    assert_eq!(connections.load(Ordering::Relaxed), 0);

    let width = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let nets: Vec<_> = addresses.iter().map(|ip| format!("\"{ip}/{}\"", width(ip))).collect();
    let home = Home::new(&profile(&format!("allow-plain-http = [{}]", nets.join(", "))));
    let daemon = home.daemon();
    assert!(daemon.token("").starts_with("wb_at_"));
    assert_eq!((connections.load(Ordering::Relaxed), sandbox.exchanges()), (1, 1));
}
