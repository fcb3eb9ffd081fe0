//! A blocking HTTP/1.1 client for the daemon's socket, small enough for shell prompts.
//!
//! One request per connection, everything within one deadline, answers of bounded size. It speaks exactly what
//! `server` speaks: an answer always has a `Content-Length`, so chunks are refused rather than parsed.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api;
use crate::clock::Clock;
use crate::error::{self, FileFault};
use crate::paths;

mod find;

/// The socket of one daemon.
pub struct Client {
    socket: PathBuf,
    /// Whether the socket's folder must be closed to others before anything in it is believed.
    guarded: bool,
    /// Another user whose daemon may answer, beside ours and root's.
    trusted: Option<u32>,
    clock: Clock,
}

impl Client {
    /// The daemon at `socket`, which the caller vouches for.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket, guarded: false, trusted: None, clock: Clock::system() }
    }

    /// The daemon at `socket`, which is believed only if its folder is private and ours.
    pub fn guarded_at(socket: PathBuf) -> Self {
        Self { guarded: true, ..Self::at(socket) }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn get<T: DeserializeOwned>(&self, target: &str, timeout: Duration) -> Result<T, Error> {
        self.parse(&self.get_body(target, timeout)?)
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).expect("the API's types always serialize");
        self.parse(&self.call("POST", target, &body, timeout)?)
    }

    pub fn post_empty<T: DeserializeOwned>(&self, target: &str, timeout: Duration) -> Result<T, Error> {
        self.parse(&self.call("POST", target, b"", timeout)?)
    }

    /// The same, and the connection, which the daemon takes for a sign of life.
    pub fn post_and_hold<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<(T, UnixStream), Error> {
        let body = serde_json::to_vec(body).expect("the API's types always serialize");
        let (body, stream) = self.once(&request("POST", target, &body), timeout)?;
        Ok((self.parse(&body)?, stream))
    }

    /// [`Self::get_body`] once, for an answer that may take long: `wait` returns when the connection can be read, or false if
    /// nobody wants the answer any more, which is then `None`.
    pub fn get_body_while(
        &self,
        target: &str,
        timeout: Duration,
        wait: impl FnOnce(&UnixStream) -> bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let deadline = self.clock.now().boot + timeout;
        let mut stream = self.send(&request("GET", target, b""), timeout)?;
        if !wait(&stream) {
            return Ok(None);
        }
        let answer = self.read(&mut stream, deadline, timeout)?;
        self.success(answer).map(Some)
    }

    /// The daemon's status, which it answers from memory.
    pub fn status(&self) -> Result<api::Status, Error> {
        self.get("/v1/status", STATUS_TIMEOUT)
    }

    /// The same with the processes that use the SDK files.
    pub fn status_with_jobs(&self) -> Result<api::Status, Error> {
        self.get("/v1/status?jobs=true", STATUS_TIMEOUT)
    }

    /// The answer as it came, for [`Self::parse`].
    pub fn get_body(&self, target: &str, timeout: Duration) -> Result<Vec<u8>, Error> {
        self.call("GET", target, b"", timeout)
    }

    pub fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        // serde_json's message can quote the body, which can be a token. So we say only where it is wrong.
        serde_json::from_slice(body).map_err(|error| {
            self.malformed(format!("unexpected JSON at line {} column {}", error.line(), error.column()))
        })
    }

    fn call(&self, method: &str, target: &str, body: &[u8], timeout: Duration) -> Result<Vec<u8>, Error> {
        let request = request(method, target, body);
        // A daemon that ended between taking the connection and answering is about to be started again by its
        // service manager, and every request may be repeated.
        for pause in RESTART_PAUSES {
            match self.once(&request, timeout) {
                Err(Error::BrokeOff { received: 0, .. }) => std::thread::sleep(pause),
                other => return Ok(other?.0),
            }
        }
        Ok(self.once(&request, timeout)?.0)
    }

    fn once(&self, request: &[u8], timeout: Duration) -> Result<(Vec<u8>, UnixStream), Error> {
        let deadline = self.clock.now().boot + timeout;
        let mut stream = self.send(request, timeout)?;
        let answer = self.read(&mut stream, deadline, timeout)?;
        Ok((self.success(answer)?, stream))
    }

    fn send(&self, request: &[u8], timeout: Duration) -> Result<UnixStream, Error> {
        let mut stream = self.connect(timeout)?;
        stream.write_all(request).map_err(|error| self.failed(&error, timeout, 0))?;
        Ok(stream)
    }

    /// The body of a success.
    fn success(&self, answer: Answer) -> Result<Vec<u8>, Error> {
        match answer.status {
            200..=299 => Ok(answer.body),
            status => match api::Problem::parse(&answer.body, status) {
                Some(problem) => Err(Error::Problem(Box::new(problem))),
                None => Err(self.malformed(format!("status {status} without a problem document"))),
            },
        }
    }

    fn connect(&self, timeout: Duration) -> Result<UnixStream, Error> {
        use rustix::net::{SocketAddrUnix, connect};
        if self.guarded
            && let Some(folder) = self.socket.parent()
        {
            match paths::check_private(folder) {
                Ok(()) => {}
                Err(error) if error.file_fault() == Some(&FileFault::Missing) => {
                    return Err(Error::NotRunning { socket: self.socket.clone() });
                }
                Err(error) => return Err(Error::Unsafe(error)),
            }
        }
        let io = |source: Errno| Error::Io { socket: self.socket.clone(), source: source.into() };
        let address = SocketAddrUnix::new(&self.socket).map_err(io)?;
        let fd = open().map_err(io)?;
        // On Linux the send time-out also bounds connect, which waits while a stuck daemon's queue is full.
        set_socket_timeout(&fd, Timeout::Send, Some(timeout)).map_err(io)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(timeout)).map_err(io)?;
        connect(&fd, &address).map_err(|errno| match errno {
            Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR => {
                Error::NotRunning { socket: self.socket.clone() }
            }
            Errno::ACCESS | Errno::PERM => Error::Denied { socket: self.socket.clone() },
            Errno::AGAIN | Errno::INPROGRESS | Errno::TIMEDOUT => self.timed_out(timeout),
            other => io(other),
        })?;
        let stream = UnixStream::from(fd);
        // In a folder that only this user can enter nobody else listens, and in a PID namespace that the daemon is not in
        // the kernel gives its number as 0, which rustix cannot hold.
        let private =
            self.guarded || self.socket.parent().is_some_and(|folder| paths::check_private(folder).is_ok());
        if !private {
            self.check_server(&stream)?;
        }
        Ok(stream)
    }

    /// Nothing is sent to somebody else's daemon, whoever put it there.
    fn check_server(&self, stream: &UnixStream) -> Result<(), Error> {
        let own = rustix::process::geteuid().as_raw();
        match self.server_uid(stream) {
            Ok(uid) if uid == own || uid == 0 || self.trusted == Some(uid) => Ok(()),
            Ok(uid) => Err(Error::Stranger { socket: self.socket.clone(), uid, own }),
            Err(source) => Err(Error::Io { socket: self.socket.clone(), source }),
        }
    }

    /// The user who listens, as the kernel says.
    #[cfg(target_os = "linux")]
    fn server_uid(&self, stream: &UnixStream) -> std::io::Result<u32> {
        match rustix::net::sockopt::socket_peercred(stream) {
            Ok(peer) => Ok(peer.uid.as_raw()),
            // The daemon may be in a PID namespace beside ours: the kernel gives its number as 0, which rustix cannot hold.
            Err(error) => self.maker().ok_or_else(|| error.into()),
        }
    }

    /// The user who made the socket, if nobody else can have put it there.
    #[cfg(target_os = "linux")]
    fn maker(&self) -> Option<u32> {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let folder = self.socket.parent()?.symlink_metadata().ok()?;
        let socket = self.socket.symlink_metadata().ok()?;
        let closed = folder.is_dir() && folder.mode() & 0o022 == 0 && folder.uid() == socket.uid();
        (closed && socket.file_type().is_socket()).then_some(socket.uid())
    }

    /// The user who made the socket: safe Rust has no getpeereid(3) for a blocking stream.
    #[cfg(not(target_os = "linux"))]
    fn server_uid(&self, _stream: &UnixStream) -> std::io::Result<u32> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(self.socket.metadata()?.uid())
    }

    fn read(&self, stream: &mut UnixStream, deadline: Duration, timeout: Duration) -> Result<Answer, Error> {
        let mut bytes = Vec::new();
        let mut head = None;
        loop {
            let mut piece = [0; 4096];
            let read = match stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(|error| self.failed(&error, timeout, bytes.len()))?,
            };
            if read == 0 {
                return Err(Error::BrokeOff { socket: self.socket.clone(), received: bytes.len() });
            }
            bytes.extend_from_slice(&piece[..read]);
            if head.is_none() {
                head = parse_head(&bytes).map_err(|why| self.malformed(why))?;
            }
            if let Some(Head { status, start, length }) = head
                && bytes.len() - start >= length
            {
                bytes.truncate(start + length);
                return Ok(Answer { status, body: bytes.split_off(start) });
            }
            // A daemon that sends a byte at a time does not get a new time-out with each.
            let left = deadline.saturating_sub(self.clock.now().boot);
            if left.is_zero() {
                return Err(self.timed_out(timeout));
            }
            stream.set_read_timeout(Some(left)).map_err(|error| self.failed(&error, timeout, bytes.len()))?;
        }
    }

    fn failed(&self, error: &std::io::Error, timeout: Duration, received: usize) -> Error {
        let socket = self.socket.clone();
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.timed_out(timeout),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected => {
                Error::BrokeOff { socket, received }
            }
            kind => Error::Io {
                socket,
                source: error.raw_os_error().map_or(kind.into(), std::io::Error::from_raw_os_error),
            },
        }
    }

    fn timed_out(&self, after: Duration) -> Error {
        Error::TimedOut { socket: self.socket.clone(), after }
    }

    fn malformed(&self, why: impl Into<String>) -> Error {
        Error::Malformed { socket: self.socket.clone(), why: why.into() }
    }
}

fn request(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: wandb-cred\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    )
    .into_bytes();
    if !body.is_empty() {
        request.extend_from_slice(b"Content-Type: application/json\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// A socket that no child inherits.
fn open() -> rustix::io::Result<rustix::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketType};
    #[cfg(target_os = "linux")]
    {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(fd)
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// What counts in the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Where the body starts.
    pub start: usize,
    pub length: usize,
}

/// The head of an answer, `None` while it is incomplete.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => return Err("headers without end".into()),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not HTTP ({error})")),
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok())
        .ok_or("an answer without Content-Length")?;
    if length > MAX_BODY {
        return Err(format!("an answer of {length} bytes"));
    }
    let status = response.code.expect("a complete head has a status");
    Ok(Some(Head { status, start, length }))
}

/// Percent-encodes a value for a query.
pub fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                encoded.push('%');
                encoded.push(HEX[usize::from(byte >> 4)].into());
                encoded.push(HEX[usize::from(byte & 15)].into());
            }
        }
    }
    encoded
}

/// Why there is no answer, or which answer that was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens: start a daemon.
    #[error("no daemon answers at {}", socket.display())]
    NotRunning { socket: PathBuf },
    /// Somebody else's daemon.
    #[error("permission to use {} is denied", socket.display())]
    Denied { socket: PathBuf },
    /// Another user listens there; nothing was sent.
    #[error(
        "{} is served by uid {uid}, not by you (uid {own}) or root; set WANDB_CRED_SOCKET_UID={uid} if you trust that user",
        socket.display()
    )]
    Stranger { socket: PathBuf, uid: u32, own: u32 },
    /// Somebody else could have put the socket there; nothing was sent.
    #[error("the socket's folder is not safe: {0}")]
    Unsafe(error::Error),
    #[error("the daemon at {} did not answer within {} s", socket.display(), after.as_secs())]
    TimedOut { socket: PathBuf, after: Duration },
    /// The daemon ended meanwhile.
    #[error("the daemon at {} broke off after {received} bytes of its answer", socket.display())]
    BrokeOff { socket: PathBuf, received: usize },
    /// What listens there is no daemon of ours, or one of another version.
    #[error("what answers at {} is not a wandb-credd of this version: {why}", socket.display())]
    Malformed { socket: PathBuf, why: String },
    #[error("{}: {source}", socket.display())]
    Io { socket: PathBuf, source: std::io::Error },
    /// The daemon answered with an error.
    #[error("{}", .0.detail)]
    Problem(Box<api::Problem>),
}

/// What a caller adds to the daemon's own time limit, so that the daemon can say that it ran out of time.
pub const ANSWER_MARGIN: Duration = Duration::from_secs(5);

const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// Longer in all than a restart takes: 100 ms until the service manager acts, and the start.
const RESTART_PAUSES: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(500)];

const MAX_HEADERS: usize = 32;
const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_whole_or_not_at_all() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        let head = parse_head(answer).expect("valid").expect("complete");
        assert_eq!((head.status, head.start, head.length), (200, 38, 2));
        for end in 0..head.start {
            assert!(parse_head(&answer[..end]).expect("no error yet").is_none(), "{end}");
        }
    }

    #[test]
    fn answers_of_unknown_or_absurd_length_are_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(parse_head(head.as_bytes()).is_err(), "{head}");
        }
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        endless.extend(b"a: b\r\n".repeat(MAX_HEADERS - 1));
        endless.extend([b'x'; MAX_HEAD]);
        assert!(parse_head(&endless).is_err());
    }

    #[test]
    fn queries_are_percent_encoded() {
        assert_eq!(encode("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(encode("a b&c=é"), "a%20b%26c%3D%C3%A9");
    }
}
