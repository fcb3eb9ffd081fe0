//! The load generator: one thread, epoll, prebuilt requests. It must not be what is measured, so it does no more than
//! check that each answer is complete.

use std::io::{ErrorKind, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::epoll;

use crate::Result;

#[derive(Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Whether a connection is used for many requests, or for one as by the command.
    pub(crate) keep_alive: bool,
}

/// What one server did under one load.
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// Time from request to answer.
    pub(crate) median: Duration,
}

impl Load {
    pub(crate) fn run(self, socket: &Path, lasting: Duration) -> Result<Sample> {
        let request: &[u8] = if self.keep_alive {
            b"GET /v1/token HTTP/1.1\r\nHost: wandb-cred\r\n\r\n"
        } else {
            b"GET /v1/token HTTP/1.1\r\nHost: wandb-cred\r\nConnection: close\r\n\r\n"
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let open = |slot: usize| -> Result<UnixStream> {
            let stream = UnixStream::connect(socket)?;
            let data = epoll::EventData::new_u64(slot as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            Ok(stream)
        };
        let mut slots = Vec::with_capacity(self.connections);
        for slot in 0..self.connections {
            slots.push(Slot { stream: open(slot)?, began: Instant::now(), received: 0, whole: 0 });
        }
        let mut buffer = vec![0; 16 * 1024];
        let mut events = [MaybeUninit::uninit(); 256];
        let mut latencies = Vec::with_capacity(1 << 20);

        let began = Instant::now();
        let end = began + lasting;
        for slot in &mut slots {
            slot.ask(request)?;
        }
        let mut now = began;
        while now < end {
            let (ready, _) = epoll::wait(&epoll, &mut events, None)?;
            now = Instant::now();
            for event in ready {
                let number = usize::try_from(event.data.u64())?;
                let slot = &mut slots[number];
                if !slot.read(&mut buffer)? {
                    continue;
                }
                latencies.push(now - slot.began);
                if !self.keep_alive {
                    slot.stream = open(number)?;
                }
                slot.ask(request)?;
            }
        }
        let elapsed = began.elapsed();
        let done = latencies.len();
        if done == 0 {
            bail!("no answer in {lasting:?}");
        }
        latencies.sort_unstable();
        Ok(Sample { per_second: done as f64 / elapsed.as_secs_f64(), median: latencies[done / 2] })
    }
}

/// One connection at a time; without keep-alive a new one for each request.
struct Slot {
    stream: UnixStream,
    began: Instant,
    received: usize,
    /// Length of the whole answer, once its head is known.
    whole: usize,
}

impl Slot {
    fn ask(&mut self, request: &[u8]) -> Result {
        (self.received, self.whole) = (0, 0);
        self.began = Instant::now();
        self.stream.write_all(request)?;
        Ok(())
    }

    /// Reads what is there; true when the answer is whole.
    fn read(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let read = match self.stream.read(&mut buffer[self.received..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            read => read?,
        };
        if read == 0 {
            bail!("the server closed in the middle of an answer");
        }
        self.received += read;
        if self.whole == 0 {
            self.whole = whole(&buffer[..self.received])?;
        }
        // A part would be overwritten by the next slot's read: the answers are small enough to come whole.
        if self.received != self.whole {
            bail!("{} bytes of an answer of {}", self.received, self.whole);
        }
        Ok(true)
    }
}

fn whole(answer: &[u8]) -> Result<usize> {
    let find = |what: &[u8]| answer.windows(what.len()).position(|part| part == what);
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("{}", String::from_utf8_lossy(answer));
    }
    let length = find(b"content-length: ").context("an answer without its length")? + 16;
    let digits = answer[length..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    Ok(find(b"\r\n\r\n").context("a head without end")? + 4 + length)
}
