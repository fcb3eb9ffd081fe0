//! Reads the lines of a feed, on a thread of its own: a stream may be a pipe, a terminal, a socket or a file, and not all
//! of them can be waited for otherwise.

use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::warn;
use zeroize::Zeroizing;

use super::accept;
use crate::api;
use crate::backoff::Thinned;
use crate::clock::{Clock, Now};
use crate::token::AccessToken;

/// What came on a feed.
pub enum Line {
    Token(Box<Relayed>),
    /// The job that was fed is over: its tokens are to be removed.
    Goodbye,
}

/// One profile's token. The names are foreign: whoever uses them judges them.
pub struct Relayed {
    pub profile: String,
    pub base_url: String,
    pub token: AccessToken,
}

/// A line that is no token.
#[derive(Deserialize)]
struct Last {
    end: bool,
}

/// Reads `stream` to its end. The receiver sees that as the end of the channel.
pub fn read(stream: impl Read + Send + 'static, clock: Clock) -> io::Result<mpsc::Receiver<Line>> {
    let (sender, lines) = mpsc::channel(QUEUE);
    std::thread::Builder::new().name("feed".to_owned()).spawn(move || {
        let mut stream = BufReader::new(stream);
        let skipped = Thinned::new();
        for number in 1_u64.. {
            let why = match next(&mut stream) {
                Ok(None) => return,
                Ok(Some(line)) if line.trim_ascii().is_empty() => continue,
                Ok(Some(line)) => match parse(&line, clock.now()) {
                    Ok(line) => match sender.blocking_send(line) {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                    Err(why) => why,
                },
                Err(Unread::TooLong) => "it is too long",
                Err(Unread::Failed(error)) => {
                    warn!(%error, "cannot read the feed any more");
                    return;
                }
            };
            // The line itself may hold a token.
            if let Some(count) = skipped.count() {
                warn!(line = number, why, count, "skipped a line of the feed");
            }
        }
    })?;
    Ok(lines)
}

/// Reads a line, and says in words of its own what is wrong with it.
pub fn parse(line: &[u8], now: Now) -> Result<Line, &'static str> {
    if let Ok(Last { end: true }) = serde_json::from_slice(line) {
        return Ok(Line::Goodbye);
    }
    let answer: api::Token =
        serde_json::from_slice(line).map_err(|_| "it is not an answer of GET /v1/token")?;
    let token = accept(&answer, now)?;
    Ok(Line::Token(Box::new(Relayed { profile: answer.profile, base_url: answer.base_url, token })))
}

enum Unread {
    TooLong,
    Failed(io::Error),
}

/// The next line, `None` at the end. A line that is too long is read to its end, and dropped.
fn next(stream: &mut impl BufRead) -> Result<Option<Zeroizing<Vec<u8>>>, Unread> {
    let mut line = Zeroizing::new(Vec::new());
    let mut too_long = false;
    loop {
        let piece = match stream.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Unread::Failed(error)),
        };
        if piece.is_empty() {
            // A last line without its end may be half a line.
            return if too_long { Err(Unread::TooLong) } else { Ok(None) };
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(piece.len(), |end| end + 1);
        too_long |= line.len() + taken > MAX_LINE;
        if !too_long {
            line.extend_from_slice(&piece[..taken]);
        }
        stream.consume(taken);
        if end.is_some() {
            return if too_long { Err(Unread::TooLong) } else { Ok(Some(line)) };
        }
    }
}

/// Access tokens are under 4 KiB, and W&B's whole answer is taken up to 64 KiB.
const MAX_LINE: usize = 128 * 1024;

/// Lines that wait to be looked at.
const QUEUE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::test::answer;

    async fn all(text: Vec<u8>) -> Vec<String> {
        let mut lines = read(io::Cursor::new(text), Clock::system()).expect("a thread");
        let mut seen = Vec::new();
        while let Some(line) = lines.recv().await {
            seen.push(match line {
                Line::Token(relayed) => relayed.token.secret().expose().clone(),
                Line::Goodbye => "goodbye".to_owned(),
            });
        }
        seen
    }

    fn line(token: &str) -> String {
        serde_json::to_string(&answer(token, Clock::system().now(), 3600)).expect("json") + "\n"
    }

    #[tokio::test]
    async fn good_lines_come_through_whatever_is_between() {
        let mut text = line("wb_at_1").into_bytes();
        text.extend(b"nonsense\n\n{\"access_token\":7}\n\xff\xfe\n[[[[\n");
        text.extend(vec![b'x'; 3 * MAX_LINE]);
        text.push(b'\n');
        text.extend(line("wb_at_2").bytes());
        text.extend(b"{\"end\":false}\n{\"end\":true}\n");
        assert_eq!(all(text).await, ["wb_at_1", "wb_at_2", "goodbye"]);
    }

    #[tokio::test]
    async fn half_a_line_at_the_end_is_no_line() {
        let text = line("wb_at_1") + line("wb_at_2").trim_end();
        assert_eq!(all(text.into_bytes()).await, ["wb_at_1"]);
        assert_eq!(all(vec![b'x'; 2 * MAX_LINE]).await, [""; 0]);
        assert_eq!(all(Vec::new()).await, [""; 0]);
    }

    #[tokio::test]
    async fn the_longest_line_fits() {
        let long = "x".repeat(MAX_LINE - 1000);
        assert_eq!(all(line(&long).into_bytes()).await, [long]);
    }
}
