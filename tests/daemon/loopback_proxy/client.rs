//! A daemon with the proxy in front of a server, and a client that says exactly what it is told to.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::server::{Server, header};
use crate::setup::{Daemon, Home, Sandbox};

pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) home: Home,
    pub(crate) server: Server,
    pub(crate) proxy: Proxy,
}

/// What a job has of the proxy.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) key: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// `more` is for the profile.
    pub(crate) fn with(more: &str) -> Self {
        let (server, home) = (Server::start(), Home::new(""));
        let jwt = home.write("jwt", &Sandbox::start(&[]).control().mint("life=36000"));
        home.write_config(&format!(
            "[profile.work]\nbase-url = \"{}\"\naudience = \"sandbox\"\n{more}\n[profile.work.provider.file]\npath = \"{}\"\n",
            server.url,
            jwt.display()
        ));
        let daemon = home.daemon();
        let proxy = ask(&daemon, std::process::id());
        Self { daemon, home, server, proxy }
    }

    pub(crate) fn job(&self, pid: u32) -> Proxy {
        ask(&self.daemon, pid)
    }
}

/// Registers a process.
pub(crate) fn ask(daemon: &Daemon, pid: u32) -> Proxy {
    let answer = daemon.ask("POST", "/v1/jobs", &json!({ "pid": pid, "proxy": true }).to_string());
    let answer = answer.expect("the daemon answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let proxy = &answer.json()["proxy"];
    let port = proxy["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
    Proxy { port, key: proxy["key"].as_str().expect("a key").to_owned() }
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether it ended as its head said it would.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the SDK shows.
    pub(crate) fn message(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()));
        json["errors"][0]["message"].as_str().expect("a message").to_owned()
    }
}

impl Proxy {
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn authorization(&self) -> String {
        basic(&self.key)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.host()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        stream
    }

    /// A head with our host and key, and what else is said; ends with the empty line.
    pub(crate) fn head(&self, line: &str, more: &[(&str, &str)]) -> String {
        let mut head = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n",
            self.host(),
            self.authorization()
        );
        for (name, value) in more {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.raw(self.head(&format!("GET {target}"), &[("Connection", "close")]).as_bytes())
    }

    pub(crate) fn post(&self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let length = body.len().to_string();
        let headers = [headers, &[("Content-Length", &length), ("Connection", "close")]].concat();
        self.raw(&[self.head(&format!("POST {target}"), &headers).as_bytes(), body].concat())
    }

    /// Sends bytes on a connection of their own.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        let mut writing = stream.try_clone().expect("a copy");
        let bytes = bytes.to_vec();
        // It may answer, and hang up, before it has everything.
        let writer = std::thread::spawn(move || drop(writing.write_all(&bytes)));
        let answer = read(&mut stream, false).expect("an answer");
        drop(stream);
        writer.join().expect("no panic");
        answer
    }
}

pub(crate) fn basic(key: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("api:{key}")))
}

/// One answer. `bare` says that it has no body, whatever its head says.
pub(crate) fn read(stream: &mut TcpStream, bare: bool) -> io::Result<Answer> {
    let mut buffer = Vec::new();
    let mut byte = [0];
    while !buffer.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&buffer).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut answer = Answer { status, head, body: Vec::new(), whole: true };
    if bare || status == 204 || status == 304 {
        return Ok(answer);
    }
    if let Some(length) = answer.header("content-length") {
        let length = length.parse().expect("a number");
        let mut part = stream.take(length);
        answer.whole = part.read_to_end(&mut answer.body).is_ok() && answer.body.len() as u64 == length;
    } else if answer.header("transfer-encoding").is_some() {
        answer.whole = chunks(stream, &mut answer.body).is_some();
    } else {
        answer.whole = stream.read_to_end(&mut answer.body).is_ok();
    }
    Ok(answer)
}

fn chunks(stream: &mut TcpStream, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            line.push(byte[0]);
        }
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return Some(());
        }
    }
}
