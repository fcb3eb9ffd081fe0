//! The loopback proxy, where a job uses it: whether it listens, and whether a request gets through with this shell's key.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};

use super::report::{Report, Step};
use crate::api;
use crate::env::Env;
use crate::error::Exit;

/// Checks what the daemon says of the proxy, and the caller's variables if they name it. Whether they do: they are then no
/// variables of the SDK files.
pub fn check(env: &Env, status: Option<&api::Status>, report: &mut Report) -> bool {
    let step = Step::LoopbackProxy;
    let proxy = status.and_then(|status| status.proxy.as_ref());
    let named = port_of(env).zip(env.var(API_KEY));
    let Some((port, key)) = named else {
        match proxy {
            Some(proxy) if proxy.listening => {
                report.ok(step, format!("{} listens for {} job(s)", proxy.url, proxy.jobs.len()));
            }
            Some(proxy) => taken(&proxy.url, report),
            None => {}
        }
        return false;
    };
    let url = format!("http://127.0.0.1:{port}");
    match proxy {
        Some(proxy) if proxy.url == url && !proxy.listening => taken(&url, report),
        Some(proxy) if proxy.url == url => through(&url, port, &key, report),
        // Somebody's own server on loopback, with a key of its own.
        _ if env.var(TRACE_URL) != Some(format!("{url}/traces")) => return false,
        _ => report.fail(
            step,
            Exit::Configuration,
            format!("{BASE_URL} names a proxy at {url}, and this daemon has none there"),
            "start the program again, with: wandb-cred exec --proxy",
        ),
    }
    bypass(env, report);
    true
}

fn taken(url: &str, report: &mut Report) {
    report.fail(
        Step::LoopbackProxy,
        Exit::TryLater,
        format!("another program listens at {url}, which running jobs know as the proxy"),
        "stop that program; the daemon takes the port as soon as it is free",
    );
}

/// Asks W&B who we are, as a program here would.
fn through(url: &str, port: u16, key: &str, report: &mut Report) {
    let step = Step::LoopbackProxy;
    match ask(port, key) {
        Ok(200) => report.ok(step, format!("a request through {url} is answered")),
        Ok(401) => report.fail(
            step,
            Exit::Configuration,
            format!(
                "the proxy at {url} does not take this shell's {API_KEY}: the job that it was for is over"
            ),
            "start the program again, with: wandb-cred exec --proxy",
        ),
        Ok(503) => report.fail(
            step,
            Exit::TryLater,
            format!("the proxy at {url} has no token, or does not reach W&B"),
            "see the other steps; programs try again by themselves",
        ),
        Ok(status) => report.warn(
            step,
            format!("W&B answered {status} to a request through {url}"),
            "see the step api-call",
        ),
        Err(error) => report.fail(
            step,
            Exit::Unavailable,
            format!("no answer from the proxy at {url}: {error}"),
            "see what the daemon logs",
        ),
    }
}

fn ask(port: u16, key: &str) -> std::io::Result<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let authorization = STANDARD.encode(format!("api:{key}"));
    let body = r#"{"query":"query Viewer { viewer { id } }"}"#;
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Basic {authorization}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    // `HTTP/1.1 200 OK`
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    status.ok_or_else(|| std::io::Error::other("it is not HTTP"))
}

/// Whether a corporate proxy would get the key.
fn bypass(env: &Env, report: &mut Report) {
    let set = |names: &[&str]| names.iter().find_map(|name| env.var(name));
    if set(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]).is_none() {
        return;
    }
    let names = |list: &str| list.split(',').any(|host| ["127.0.0.1", "*"].contains(&host.trim()));
    for name in ["NO_PROXY", "no_proxy"] {
        if !env.var(name).is_some_and(|list| names(&list)) {
            report.warn(
                Step::LoopbackProxy,
                format!("{name} does not name 127.0.0.1: some SDKs send the key to the corporate proxy"),
                format!("append 127.0.0.1 to {name}, as wandb-cred exec --proxy does"),
            );
        }
    }
}

/// The port of a base URL that could be the proxy's.
fn port_of(env: &Env) -> Option<u16> {
    let url: Url = env.var(BASE_URL)?.parse().ok()?;
    let ours = url.scheme() == "http" && url.host() == Some(Host::Ipv4(Ipv4Addr::LOCALHOST));
    url.port().filter(|_| ours)
}

const BASE_URL: &str = "WANDB_BASE_URL";
const API_KEY: &str = "WANDB_API_KEY";
const TRACE_URL: &str = "WF_TRACE_SERVER_URL";

/// More than the proxy waits for a token.
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: u64 = 64 * 1024;
