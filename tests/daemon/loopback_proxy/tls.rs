//! W&B behind TLS and a corporate proxy: the daemon's own exchange and what the loopback proxy sends on take the same way.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::client::ask;
use super::server::Server;
use crate::setup::{DAEMON, Home, Sandbox};

/// A name that leads nowhere: only the corporate proxy knows the way.
const NAME: &str = "wandb.invalid";

fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (key, cert) = (folder.join("tls.key"), folder.join("tls.crt"));
    let config = format!(
        "[req]\ndistinguished_name=d\nx509_extensions=x\nprompt=no\n[d]\nCN={NAME}\n[x]\nsubjectAltName=DNS:{NAME}\n"
    );
    let mut made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-nodes",
            "-days",
            "2",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-config", "/dev/stdin", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl starts");
    made.stdin.take().expect("piped").write_all(config.as_bytes()).expect("written");
    assert!(made.wait().expect("it ends").success());
    (key, cert)
}

/// A proxy that takes CONNECT alone, and has a TLS server in front of `upstream` behind every name. Counts the connections.
fn corporate_proxy(key: &Path, cert: &Path, upstream: &str, password: bool) -> (String, Arc<AtomicUsize>) {
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(cert).expect("a certificate")],
                PrivateKeyDer::from_pem_file(key).expect("a key"),
            )
            .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let upstream = upstream.trim_start_matches("http://").to_owned();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let user = if password { "ada:pass@" } else { "" };
    let url = format!("http://{user}{}", listener.local_addr().expect("bound"));
    let tunnels = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&tunnels);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (acceptor, upstream, counted) =
                    (acceptor.clone(), upstream.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.expect("a head"));
                    }
                    let head = String::from_utf8_lossy(&head);
                    assert!(head.starts_with(&format!("CONNECT {NAME}:443 HTTP/1.1\r\n")), "{head}");
                    // ada:pass
                    let shown = head.to_ascii_lowercase().contains("proxy-authorization: basic ywrhonbhc3m=");
                    assert_eq!(shown, password, "{head}");
                    counted.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("sent");
                    let Ok(mut secure) = acceptor.accept(stream).await else { return };
                    let mut plain = TcpStream::connect(upstream).await.expect("it listens");
                    let _ = copy_bidirectional(&mut secure, &mut plain).await;
                });
            }
        });
    });
    (url, tunnels)
}

#[test]
fn requests_go_by_the_corporate_proxy_and_tls_like_everything_else() {
    let (server, home) = (Server::start(), Home::new(""));
    let jwt = home.write("jwt", &Sandbox::start(&[]).control().mint("life=36000"));
    home.write_config(&format!(
        "[profile.work]\nbase-url = \"https://{NAME}\"\naudience = \"sandbox\"\n[profile.work.provider.file]\npath = \"{}\"\n",
        jwt.display()
    ));
    let (key, cert) = certificate(&home.path(""));
    let (url, tunnels) = corporate_proxy(&key, &cert, &server.url, true);
    let mut daemon = home.program(DAEMON, &["run", "--log-level", "debug"]);
    let daemon = home.daemon_of(daemon.env("HTTPS_PROXY", &url).env("SSL_CERT_FILE", &cert));
    let proxy = ask(&daemon, std::process::id());
    let before = tunnels.load(Ordering::SeqCst);
    assert_eq!(before, 1, "the exchange");
    let body = vec![b'x'; 3 * 1024 * 1024];
    for _ in 0..3 {
        let answered = proxy.post("/echo", &[], &body);
        assert!(answered.status == 200 && answered.body == body, "{}", answered.head);
    }
    assert_eq!(server.seen()[0].header("host"), Some(NAME));
    assert_eq!(tunnels.load(Ordering::SeqCst), before + 1, "the connection is kept");
    assert!(!daemon.log().contains("pass"), "the proxy's password");
    drop(daemon);

    // Whose certificate nobody trusts gets no token.
    server.forget();
    let mut daemon = home.program(DAEMON, &["run"]);
    let daemon = home.daemon_of(daemon.env("HTTPS_PROXY", &url));
    let wanted = serde_json::json!({ "pid": std::process::id(), "proxy": true, "wait": false }).to_string();
    let job = daemon.ask("POST", "/v1/jobs", &wanted).expect("an answer").json();
    assert!(job["proxy"]["key"].is_string(), "{job}");
    assert!(server.seen().is_empty());
}

#[test]
fn requests_go_as_their_profile_says_and_no_profile_uses_the_connections_of_another() {
    let (server, home) = (Server::start(), Home::new(""));
    let jwt = home.write("jwt", &Sandbox::start(&[]).control().mint("life=36000"));
    let (key, cert) = certificate(&home.path(""));
    let (url, tunnels) = corporate_proxy(&key, &cert, &server.url, false);
    let profile = |name: &str, keys: &str| {
        format!(
            "[profile.{name}]\nbase-url = \"https://{NAME}\"\naudience = \"sandbox\"\n{keys}\n[profile.{name}.provider.file]\npath = \"{}\"\n",
            jwt.display()
        )
    };
    let trusts =
        format!("loopback-proxy = true\nproxy = \"{url}\"\nca-file = {:?}", cert.display().to_string());
    let doubts = format!("loopback-proxy = true\nproxy = \"{url}\"");
    home.write_config(&format!(
        "default-profile = \"work\"\n{}{}",
        profile("work", &trusts),
        profile("other", &doubts)
    ));
    let daemon = home.daemon();
    let proxy = ask(&daemon, std::process::id());
    for _ in 0..3 {
        assert_eq!(proxy.post("/echo", &[], b"row").text(), "row");
    }
    assert_eq!(tunnels.load(Ordering::SeqCst), 2, "the exchange's, and one that is kept");
    let wanted =
        serde_json::json!({ "pid": std::process::id(), "profile": "other", "wait": false }).to_string();
    let job = daemon.ask("POST", "/v1/jobs", &wanted).expect("an answer").json();
    let key = job["proxy"]["key"].as_str().expect("a key").to_owned();
    let other = super::client::Proxy { key, ..proxy.clone() };
    server.forget();
    // It has no token, and would have no way to present one: it does not trust the certificate.
    assert_eq!(other.post("/echo", &[], b"row").status, 503);
    assert!(server.seen().is_empty());
    assert_eq!(proxy.post("/echo", &[], b"row").status, 200);
}
