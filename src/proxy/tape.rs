//! The head of a request as it came. hyper settles a request with two framings by itself, and does not say that there were
//! two; whoever sends both wants two servers to disagree.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes read since the last request was answered, up to the end of a head.
#[derive(Clone, Debug, Default)]
pub(super) struct Tape(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    bytes: Vec<u8>,
    done: bool,
}

impl Tape {
    /// Begins anew: what is read next is a head.
    pub(super) fn begin(&self) {
        let mut recorded = self.recorded();
        recorded.bytes.clear();
        recorded.done = false;
    }

    /// Whether the head says twice how long its body is.
    pub(super) fn has_both_framings(&self) -> bool {
        let recorded = self.recorded();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Request::new(&mut headers);
        // Of a head that is cut off, what is there counts.
        let _ = head.parse(&recorded.bytes);
        let has = |name: &str| head.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
        has("content-length") && has("transfer-encoding")
    }

    fn record(&self, bytes: &[u8]) {
        let mut recorded = self.recorded();
        if recorded.done {
            return;
        }
        // The end may lie across two pieces.
        let from = recorded.bytes.len().saturating_sub(3);
        let room = MAX_TAPE - recorded.bytes.len();
        recorded.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let end = recorded.bytes[from..].windows(4).any(|window| window == b"\r\n\r\n");
        recorded.done = end || recorded.bytes.len() >= MAX_TAPE;
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection whose heads are recorded.
pub(super) struct Taped<S> {
    pub(super) stream: S,
    pub(super) tape: Tape,
}

impl<S: AsyncRead + Unpin> AsyncRead for Taped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.tape.record(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// As many as hyper takes.
const MAX_HEADERS: usize = 100;

/// A head can be this long.
const MAX_TAPE: usize = super::MAX_HEAD;

#[cfg(test)]
mod tests {
    use super::*;

    fn both(pieces: &[&str]) -> bool {
        let tape = Tape::default();
        pieces.iter().for_each(|piece| tape.record(piece.as_bytes()));
        tape.has_both_framings()
    }

    #[test]
    fn two_framings_are_seen_in_a_head_and_not_in_a_body() {
        let (te, cl) = ("Transfer-Encoding: chunked\r\n", "content-length: 3\r\n");
        assert!(both(&[&format!("POST / HTTP/1.1\r\n{te}{cl}\r\n")]));
        assert!(both(&[
            "POST / HTTP/1.1\r\nContent-Le",
            "ngth: 3\r\nTransfer-",
            "Encoding: chunked\r\n\r",
            "\n0"
        ]));
        assert!(!both(&[&format!("POST / HTTP/1.1\r\n{te}\r\n"), cl]));
        let tape = Tape::default();
        tape.record(format!("POST / HTTP/1.1\r\n{te}{cl}\r\n").as_bytes());
        tape.begin();
        tape.record(b"GET / HTTP/1.1\r\n\r\n");
        assert!(!tape.has_both_framings(), "the next request");
    }
}
