//! A daemon that cannot start tells those who wait on the service manager's socket why.
//!
//! The manager starts the daemon for a connection, and would start it again for one that is still waiting when the daemon
//! has ended: so none may be left waiting.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::api::{Problem, ProblemKind};
use crate::error::Error;

/// Answers every connection that is there by now, whatever it asks.
pub(super) fn refuse(listener: &UnixListener, error: &Error) -> io::Result<()> {
    let reason = Some(error.reason.clone());
    let problem = Problem { reason, ..Problem::new(ProblemKind::from(error), error.to_string()) };
    let body = serde_json::to_string(&problem).expect("our own types always serialise");
    let answer = format!(
        "HTTP/1.1 {} \r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        problem.status,
        body.len()
    );
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            // Whoever goes away before the answer gets none.
            Ok((stream, _)) => drop(tell(stream, &answer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn tell(mut stream: UnixStream, answer: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // A close with something unread would reset the connection under the answer.
    let _ = stream.read(&mut [0; 16 * 1024]);
    stream.write_all(answer.as_bytes())
}

/// For one request, which is there as a rule, and one answer.
const TIMEOUT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, Reason, Stage};

    #[test]
    fn everybody_who_waits_is_told_why() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).expect("bound");
        let mut waiting: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).expect("connected")).collect();
        for stream in &mut waiting[..2] {
            stream.write_all(b"GET /v1/token HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
        }
        let why = Error::new(Stage::Configuration, Kind::Misconfigured, Reason::Other, "line 3 is wrong");
        refuse(&listener, &why).expect("answered");
        for mut stream in waiting {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer, also to who has asked nothing yet");
            assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("line 3 is wrong"), "{answer}");
            assert!(answer.contains("\"misconfigured\"") && answer.contains("wandb-cred check"), "{answer}");
        }
    }
}
