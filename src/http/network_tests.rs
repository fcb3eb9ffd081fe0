//! A profile's own way to the network, against servers on loopback.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::error::{FileFault, Kind, NetworkFault};

/// Answers every connection so; what it was asked comes out of the receiver, in lower case.
fn server(answer: &'static str) -> (Url, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
    let (tell, asked) = mpsc::channel();
    // Ends with the test process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut head = String::new();
            let mut reader = BufReader::new(&stream);
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
            let _ = (&stream).write_all(answer.as_bytes());
            let _ = tell.send(head.to_lowercase());
        }
    });
    (url, asked)
}

async fn get(network: Network, url: &str) -> Result<Answer, Error> {
    let http = Http::new(Clock::system()).with_network(&Arc::new(network));
    let request = http.request(Destination::Network, reqwest::Method::GET, url.parse().expect("a URL"));
    http.send(Destination::Network, request, Duration::from_secs(10), 1024).await
}

fn through_proxy(url: &Url, except: &str) -> Network {
    let proxy = Proxy::parse(url.as_str(), Some(except.to_owned())).expect("a proxy");
    Network { proxy: Some(proxy), ..Network::default() }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

#[tokio::test]
async fn an_error_through_a_proxy_names_the_proxy() {
    let (proxy, asked) = server("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
    let at = format!("127.0.0.1:{}", proxy.port().expect("a port"));
    let error = get(through_proxy(&proxy, ""), "https://wandb.example/").await.expect_err("refused");
    assert!(error.message.contains(&format!("through the proxy {at}")), "{error}");
    assert!(error.message.contains("(407)") && error.kind == Kind::Misconfigured, "{error:?}");
    assert!(
        matches!(error.reason, Reason::Unreachable { ref host, .. } if host == "wandb.example"),
        "{error:?}"
    );
    let head = asked.recv().expect("the proxy was asked");
    assert!(head.starts_with("connect wandb.example:443 "), "{head}");
    // An exception goes by itself, and the error says nothing of a proxy. Nothing listens on port 1.
    let error = get(through_proxy(&proxy, "127.0.0.0/8,wandb.invalid"), "https://wandb.invalid:1/").await;
    let error = error.expect_err("no such host");
    assert!(!error.message.contains("proxy"), "{error}");
    assert!(asked.try_recv().is_err());
}

/// By both of our ways to a server.
async fn both_ways(proxy: &str) -> [Error; 2] {
    let network = through_proxy(&proxy.parse().expect("a URL"), "");
    let asked = get(network.clone(), "https://wandb.example/").await.expect_err("no way");
    let http = Http::new(Clock::system()).with_network(&Arc::new(network));
    let connected = http.connect(&"https://wandb.example/".parse().expect("a URL")).await;
    [asked, connected.err().expect("no way")]
}

#[tokio::test]
async fn whatever_fails_at_a_proxy_is_said_of_the_proxy() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    for (proxy, fault) in [
        (unused.to_string(), NetworkFault::Refused),
        ("proxy.nosuch.invalid:3128".to_owned(), NetworkFault::UnknownName),
    ] {
        for error in both_ways(&format!("http://{proxy}")).await {
            let words = format!("cannot connect to the proxy {proxy} on the way to wandb.example");
            assert!(error.message.contains(&words), "{error}");
            let whose = Reason::Unreachable { host: proxy.clone(), fault };
            // A machine without a name server cannot say that there is no such name.
            assert!(error.reason == whose || fault == NetworkFault::UnknownName, "{error:?}");
        }
    }
    for (answer, words) in [
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "refuses"),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "refuses"),
        ("", "closed the connection"),
    ] {
        let (proxy, _asked) = server(answer);
        let [asked, connected] = both_ways(proxy.as_str()).await;
        assert!(asked.message.contains(words), "{asked}");
        for error in [asked, connected] {
            let at = format!("through the proxy 127.0.0.1:{}", proxy.port().expect("a port"));
            assert!(error.message.contains(&at) && error.message.contains("wandb.example"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_server_of_plain_http_is_told_from_one_that_breaks_off() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whatever is asked, as such servers do: here, a TLS greeting.
            let _ = std::io::Read::read(&mut stream, &mut [0; 16]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let error = get(Network::default(), &format!("https://{at}/")).await.expect_err("no TLS");
    assert!(error.message.contains("does not speak TLS; is it plain http?"), "{error}");
}

#[tokio::test]
async fn a_socks_proxy_is_asked_for_the_name() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = format!("socks5h://{}", listener.local_addr().expect("bound"));
    let greeted = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut greeting = [0; 3];
        std::io::Read::read_exact(&mut stream, &mut greeting).expect("a greeting");
        // No authentication; then a request for a name, which it refuses.
        stream.write_all(&[5, 0]).expect("sent");
        let mut request = [0; 5 + 13 + 2];
        std::io::Read::read_exact(&mut stream, &mut request).expect("a request");
        stream.write_all(&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]).expect("sent");
        (greeting, request)
    });
    let error = get(through_proxy(&proxy.parse().expect("a URL"), ""), "https://wandb.example/").await;
    let error = error.expect_err("refused");
    assert!(error.message.contains("through the proxy 127.0.0.1:"), "{error}");
    let (greeting, request) = greeted.join().expect("it was asked");
    assert_eq!(greeting, [5, 1, 0]);
    assert_eq!(&request[5..18], b"wandb.example");
}

#[tokio::test]
async fn headers_go_to_the_w_and_b_server_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("headers");
    std::fs::write(&path, "CF-Access-Client-Secret: planted\n").expect("written");
    let mode = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    let ((wandb, asked), (other, asked_other)) = (server(OK), server(OK));
    let network =
        Network { server: Some(wandb.clone()), headers_file: Some(path.clone()), ..Network::default() };
    mode(0o600);
    for url in [&wandb, &other] {
        get(network.clone(), url.as_str()).await.expect("an answer");
    }
    assert!(asked.recv().expect("asked").contains("\r\ncf-access-client-secret: planted\r\n"));
    assert!(!asked_other.recv().expect("asked").contains("planted"));
    mode(0o644);
    let error = get(network, wandb.as_str()).await.expect_err("open to others");
    assert_eq!(error.file_fault(), Some(&FileFault::Loose { mode: 0o644 }), "{error}");
    assert!(!error.message.contains("planted") && asked.try_recv().is_err(), "{error}");
}

#[tokio::test]
async fn plain_http_goes_where_the_profile_lets_it() {
    let network = |server: &str, net: &str| Network {
        server: Some(server.parse().expect("a URL")),
        plain_http: plain_networks(&[net.to_owned()]).expect("a network"),
        ..Network::default()
    };
    // Refused before anything is sent: another host, another network.
    for (server, url) in
        [("http://10.9.9.9", "http://10.9.9.8/"), ("http://192.168.0.1", "http://192.168.0.1/")]
    {
        let error = get(network(server, "10.0.0.0/8"), url).await.expect_err(url);
        assert!(matches!(error.reason, Reason::PlainHttp { .. }), "{error:?}");
    }
    // A name is judged by what it leads to. This one leads to loopback, and is not written like it.
    let name = "ip6-localhost";
    let url = format!("http://{name}:1/");
    let error = get(network(&url, "10.0.0.0/8"), &url).await.expect_err("elsewhere");
    let faults = [NetworkFault::ForbiddenAddress, NetworkFault::UnknownName, NetworkFault::Other];
    assert!(
        matches!(&error.reason, Reason::Unreachable { fault, .. } if faults.contains(fault)),
        "{error:?}"
    );
}

#[tokio::test]
async fn authorities_of_a_file_or_folder_are_read() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ask = async |path: &Path| {
        let network = Network { ca_file: Some(path.to_owned()), ..Network::default() };
        get(network, "https://127.0.0.1:1/").await.err();
        let network = Network { ca_file: Some(path.to_owned()), ..Network::default() };
        get(network, "https://wandb.invalid/").await.expect_err("no such host")
    };
    let error = ask(dir.path()).await;
    assert!(error.message.contains("ca-file") && error.message.contains("no certificate"), "{error}");
    std::fs::write(dir.path().join("README"), "no certificate").expect("written");
    std::fs::write(dir.path().join("corp.pem"), ROOT).expect("written");
    for path in [dir.path().to_owned(), dir.path().join("corp.pem")] {
        let error = ask(&path).await;
        assert!(matches!(error.reason, Reason::Unreachable { .. } | Reason::TimedOut { .. }), "{error:?}");
    }
    let error = ask(&dir.path().join("none.pem")).await;
    assert_eq!(error.file_fault(), Some(&FileFault::Missing), "{error}");
}

/// A root that signs nothing; good for a hundred years.
const ROOT: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBgDCCASWgAwIBAgIUKkevt5usT30dAcCtXzlGc6yODn4wCgYIKoZIzj0EAwIw\n\
FDESMBAGA1UEAwwJdGVzdCByb290MCAXDTI2MTEyNjA2NDEzNFoYDzIxMjYxMTAy\n\
MDY0MTM0WjAUMRIwEAYDVQQDDAl0ZXN0IHJvb3QwWTATBgcqhkjOPQIBBggqhkjO\n\
PQMBBwNCAASF0wV8nn7ilxFa1Vzm/CtLwL9bJpos8PxAmgfYvmdA6zXyuAYV7zJR\n\
WK4By+xx4roSY4yXs4uM35auXEMJECwSo1MwUTAdBgNVHQ4EFgQUtI4cOrJ2LSU1\n\
LFQLbIzqMEq33+MwHwYDVR0jBBgwFoAUtI4cOrJ2LSU1LFQLbIzqMEq33+MwDwYD\n\
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAhX6YWc9ki2Z8k5pHYyIp\n\
vkiXMZTWzsxcSUYhQc/u/MQCIQDepaPnMZpHudIzMNfo879JHJkKzs7S1UHsUK5Y\n\
U3lNuw==\n\
-----END CERTIFICATE-----\n\
";
