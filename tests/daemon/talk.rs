//! HTTP as the tests speak it: blocking for one request, asynchronous (hyperlocal) for many.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;
use serde_json::Value;

/// One answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// One request on a connection of its own.
pub(crate) fn ask(
    mut stream: impl Read + Write,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    stream.write_all((request + body).as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no whole answer"))
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head, body: bytes[end + 4..].to_vec() })
}

/// A client that keeps its connections, for tests that run many requests at once.
#[derive(Clone)]
pub(crate) struct Client {
    hyper: HyperClient<UnixConnector, Full<Bytes>>,
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        let hyper = HyperClient::builder(TokioExecutor::new()).build(UnixConnector);
        Self { hyper, socket: socket.to_owned() }
    }

    pub(crate) async fn get(&self, target: &str) -> Result<Answer, String> {
        let uri: hyper::Uri = hyperlocal::Uri::new(&self.socket, target).into();
        let response = self.hyper.get(uri).await.map_err(|error| format!("{error:?}"))?;
        let status = response.status().as_u16();
        let head = format!("{:?}", response.headers());
        let body = response.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
        Ok(Answer { status, head, body: body.to_bytes().to_vec() })
    }
}
