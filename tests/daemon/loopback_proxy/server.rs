//! A W&B server of bare TCP, which does to its clients what a library would not, and remembers what they sent.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Counts the connections.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    exchanges: AtomicUsize,
    live: Mutex<BTreeSet<String>>,
    /// What `/answer` answers: whole, head and all.
    answer: Mutex<Vec<u8>>,
    seen: Mutex<Vec<Seen>>,
    /// Connections that ended before their request did.
    aborted: AtomicUsize,
    /// Issued tokens are dead from the beginning.
    dead: AtomicUsize,
    exchange_delay: Mutex<Duration>,
    no_exchange: AtomicUsize,
    /// Requests for `/late-401` so far.
    late: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let server = Self { url, state: Arc::default() };
        let own = server.clone();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let own = own.clone();
                thread::spawn(move || own.serve(stream.expect("a connection"), number));
            }
        });
        server
    }

    pub(crate) fn exchanges(&self) -> usize {
        self.state.exchanges.load(Ordering::SeqCst)
    }

    pub(crate) fn aborted(&self) -> usize {
        self.state.aborted.load(Ordering::SeqCst)
    }

    pub(crate) fn revoke(&self) {
        lock(&self.state.live).clear();
    }

    /// Tokens are dead when they come.
    pub(crate) fn issue_dead_tokens(&self) {
        self.state.dead.store(1, Ordering::SeqCst);
        self.revoke();
    }

    /// The exchange answers 503.
    pub(crate) fn refuse_exchanges(&self) {
        self.state.no_exchange.store(1, Ordering::SeqCst);
    }

    pub(crate) fn delay_exchanges(&self, delay: Duration) {
        *lock(&self.state.exchange_delay) = delay;
    }

    /// What `/answer` and `/graphql` send.
    pub(crate) fn answer_with(&self, answer: impl Into<Vec<u8>>) {
        *lock(&self.state.answer) = answer.into();
    }

    /// Requests that were not for a token.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    pub(crate) fn forget(&self) {
        lock(&self.state.seen).clear();
    }

    fn serve(&self, mut stream: TcpStream, connection: usize) {
        let mut buffer = Vec::new();
        let mut slams = false;
        while let Some(head) = read_head(&mut stream, &mut buffer) {
            if slams {
                return;
            }
            let mut seen = Seen { head, body: Vec::new(), connection };
            let target = seen.target().to_owned();
            if target.starts_with("/early-401") {
                lock(&self.state.seen).push(seen);
                let _ =
                    stream.write_all(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                return;
            }
            let Some(body) = read_body(&mut stream, &mut buffer, &seen.head) else {
                self.state.aborted.fetch_add(1, Ordering::SeqCst);
                lock(&self.state.seen).push(seen);
                return;
            };
            seen.body = body;
            if target == "/oidc/token" {
                let answer = self.exchange();
                let _ = stream.write_all(answer.as_bytes());
                continue;
            }
            let bearer = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
            let good = bearer.is_some_and(|token| lock(&self.state.live).contains(token));
            let (is_head, body) = (seen.line().starts_with("HEAD "), seen.body.clone());
            let kind = seen.header("content-encoding").map(str::to_owned);
            let open = target == "/server_info" || target == "/traces/server_info";
            lock(&self.state.seen).push(seen);
            if !good && !open {
                let text = r#"{"errors":[{"message":"user is not logged in"}]}"#;
                let _ = stream.write_all(answer("401 Unauthorized", &[], text.as_bytes()).as_slice());
                continue;
            }
            if target == "/late-401" {
                let seen = self.exchanges();
                if self.state.late.fetch_add(1, Ordering::SeqCst) > 0 {
                    // Until there is a newer token than the one that it was asked with.
                    for _ in 0..2000 {
                        if self.exchanges() > seen {
                            break;
                        }
                        thread::sleep(Duration::from_millis(5));
                    }
                }
                let _ = stream.write_all(&answer("401 Unauthorized", &[], b"{}"));
                continue;
            }
            let answered = match target.as_str() {
                "/echo" => {
                    let kind = kind.unwrap_or_else(|| "identity".to_owned());
                    stream.write_all(&answer("200 OK", &[("Content-Encoding", &kind)], &body))
                }
                "/answer" | "/graphql" => {
                    // Pieces of three bytes, in segments of their own as far as the system allows.
                    let whole = lock(&self.state.answer).clone();
                    let sent = whole.chunks(3).try_for_each(|piece| stream.write_all(piece));
                    if String::from_utf8_lossy(&whole).contains("Connection: close") {
                        return;
                    }
                    sent
                }
                "/cut-length" => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                    return;
                }
                "/cut-chunked" => {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
                    return;
                }
                // Closes at the moment when the next request comes, as a server does that is tired of an idle client.
                "/then-slam" => {
                    slams = true;
                    stream.write_all(&answer("200 OK", &[], b"{}"))
                }
                "/slam" => return,
                _ if is_head => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
                _ => stream.write_all(&answer("200 OK", &[], b"{}")),
            };
            if answered.is_err() {
                return;
            }
        }
    }

    fn exchange(&self) -> String {
        thread::sleep(*lock(&self.state.exchange_delay));
        if self.state.no_exchange.load(Ordering::SeqCst) != 0 {
            return String::from_utf8(answer("503 Busy", &[], b"busy")).expect("text");
        }
        let number = self.state.exchanges.fetch_add(1, Ordering::SeqCst) + 1;
        let token = format!("wb_at_standin{number}");
        if self.state.dead.load(Ordering::SeqCst) == 0 {
            lock(&self.state.live).insert(token.clone());
        }
        let text = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#);
        String::from_utf8(answer("200 OK", &[("Content-Type", "application/json")], text.as_bytes()))
            .expect("text")
    }
}

pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    [(text + "\r\n").as_bytes(), body].concat()
}

fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    let end = fill_until(stream, buffer, |buffer| {
        buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|place| place + 4)
    })?;
    let head = buffer.drain(..end).collect::<Vec<_>>();
    Some(String::from_utf8_lossy(&head[..end - 4]).into_owned())
}

fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &str) -> Option<Vec<u8>> {
    if let Some(length) = header(head, "content-length") {
        let length = length.parse().expect("a number");
        fill_until(stream, buffer, |buffer| (buffer.len() >= length).then_some(0))?;
        return Some(buffer.drain(..length).collect());
    }
    let mut body = Vec::new();
    if header(head, "transfer-encoding").is_none() {
        return Some(body);
    }
    loop {
        let line =
            fill_until(stream, buffer, |buffer| buffer.windows(2).position(|window| window == b"\r\n"))?;
        let size = usize::from_str_radix(&String::from_utf8_lossy(&buffer[..line]), 16).expect("a size");
        buffer.drain(..line + 2);
        fill_until(stream, buffer, |buffer| (buffer.len() >= size + 2).then_some(0))?;
        body.extend(buffer.drain(..size));
        buffer.drain(..2);
        if size == 0 {
            return Some(body);
        }
    }
}

fn fill_until(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    enough: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        if let Some(place) = enough(buffer) {
            return Some(place);
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
        }
    }
}
