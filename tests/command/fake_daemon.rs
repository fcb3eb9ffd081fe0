//! A daemon that says what a test tells it to, and remembers what it was asked.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

/// A socket in a folder of its own, with canned answers.
pub(crate) struct FakeDaemon {
    pub(crate) folder: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What to do with a request whose first line starts with `route`.
pub(crate) struct Route {
    route: &'static str,
    answer: Answer,
}

#[derive(Clone)]
pub(crate) enum Answer {
    Json(u16, String),
    /// Sent as it is, then closed.
    Bytes(Vec<u8>),
    /// Held open without a word.
    Hang,
    /// A header without end, a byte now and then.
    Drip,
    /// Closed without a word for that many connections, then the other answer.
    CloseFirst(Arc<Mutex<u32>>, Box<Self>),
}

pub(crate) fn on(route: &'static str, status: u16, body: impl Into<String>) -> Route {
    Route { route, answer: Answer::Json(status, body.into()) }
}

pub(crate) fn on_answer(route: &'static str, answer: Answer) -> Route {
    Route { route, answer }
}

impl FakeDaemon {
    pub(crate) fn start(routes: Vec<Route>) -> Self {
        let folder = tempfile::tempdir().expect("temp dir");
        let listener = UnixListener::bind(folder.path().join("s")).expect("bind");
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = requests.clone();
        let routes = Arc::new(routes);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, routes) = (seen.clone(), routes.clone());
                thread::spawn(move || serve(stream.expect("accepted"), &routes, &seen));
            }
        });
        Self { folder, requests }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Request line and body of each request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// The command, with this daemon as its only environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(self.folder.path(), arguments);
        command.env("WANDB_CRED_SOCKET", self.socket());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }
}

/// The command in an environment where nothing is set but a home, and nothing runs.
pub(crate) fn bare(home: &Path, arguments: &[&str]) -> Command {
    // As a session manager makes it.
    let _ = std::fs::create_dir(home.join("run"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_wandb-cred"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").expect("PATH"));
    command
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("WANDB_CREDD", "/nonexistent/wandb-credd");
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Looks again and again until there is something, for twenty seconds.
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it did not come in 20 s");
}

/// A program of that shell script. Another process makes it: one that we have open for writing while some thread starts a
/// program could not be run yet ("text file busy").
pub(crate) fn program(path: &Path, script: &str) {
    let text = path.with_extension("text");
    std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("written");
    let install = Command::new("install").args(["-m", "755"]).args([&text, path]).status();
    assert!(install.expect("install").success());
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    of(command.output().expect("the command starts"))
}

pub(crate) fn of(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran {
        code: output.status.code().expect("ended by itself"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn serve(mut stream: UnixStream, routes: &[Route], seen: &Mutex<Vec<String>>) {
    let Some(request) = read_request(&mut stream) else { return };
    let line = request.lines().next().unwrap_or_default();
    let answer = routes.iter().find(|route| line.starts_with(route.route)).map(|route| route.answer.clone());
    let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    seen.lock()
        .expect("not poisoned")
        .push(format!("{} {body}", line.trim_end_matches(" HTTP/1.1")).trim_end().to_owned());
    let not_found =
        r#"{"type":"not-found","title":"There is no such route","status":404,"detail":"no such route"}"#;
    give(stream, answer.unwrap_or(Answer::Json(404, not_found.into())));
}

fn give(mut stream: UnixStream, answer: Answer) {
    // The command may have had enough, and gone: that is what some tests are about.
    match answer {
        Answer::Json(status, body) => {
            let kind = if status < 300 { "application/json" } else { "application/problem+json" };
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes());
        }
        Answer::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Answer::Hang => {
            let _ = stream.read(&mut [0; 16]);
        }
        Answer::Drip => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
            while stream.write_all(b"y").is_ok() {
                thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        Answer::CloseFirst(left, then) => {
            let mut left = left.lock().expect("not poisoned");
            if *left == 0 {
                drop(left);
                return give(stream, *then);
            }
            *left -= 1;
        }
    }
}

fn read_request(stream: &mut UnixStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).ok()?;
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
            if body.len() >= length.parse::<usize>().expect("a number") {
                return Some(text);
            }
        }
        if read == 0 {
            return None;
        }
    }
}
