//! The thread that writes the records, wherever they go.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::json;
use tracing::{info, warn};

use super::file::LogFile;
use super::journal::{self, Journal};
use super::record::Record;
use super::{Counts, Destination};
use crate::clock::Clock;

/// Writes until nobody can send any more. What cannot be written is tried again, once a second.
pub(super) fn run(queue: &Receiver<Record>, destination: &Destination, counts: &Counts, clock: &Clock) {
    let mut sink = Sink::new(destination);
    let mut pending: Vec<Record> = Vec::new();
    // Said at once: nobody should find out by the first record that is missing.
    let mut failing = tell(false, sink.open(), destination);
    let mut lost = 0;
    loop {
        let first = if pending.is_empty() && !sink.is_behind() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(RETRY)
        };
        let last = matches!(first, Err(RecvTimeoutError::Disconnected));
        pending.extend(first);
        pending.extend(queue.try_iter().take(BATCH));
        let outcome = sink.write(&mut pending, counts);
        failing = tell(failing, outcome, destination);
        let missing = counts.lost.load(Ordering::Relaxed);
        if !failing && missing > lost {
            sink.add_line(
                json!({ "time": format!("{:.6}", clock.now().wall), "lost": missing - lost }).to_string(),
            );
            lost = missing;
        }
        if last && (failing || (pending.is_empty() && !sink.is_behind())) {
            return;
        }
    }
}

/// A change is logged, its repetition is not. Whether it fails now.
fn tell(failed: bool, outcome: io::Result<()>, destination: &Destination) -> bool {
    let shown = match destination {
        Destination::Journal => "the journal".to_owned(),
        Destination::File(path) => path.display().to_string(),
    };
    match outcome {
        Err(error) => {
            if !failed {
                warn!(%error, to = shown, "the audit log cannot be written; it is tried again, and tokens are served");
            }
            true
        }
        Ok(()) => {
            if failed {
                info!(to = shown, "the audit log can be written again");
            }
            false
        }
    }
}

enum Sink {
    File {
        file: LogFile,
        /// Lines that are not written yet, or not whole.
        bytes: Vec<u8>,
        /// How many records they are.
        records: usize,
    },
    Journal(Option<Journal>),
}

impl Sink {
    fn new(destination: &Destination) -> Self {
        match destination {
            Destination::Journal => Self::Journal(None),
            Destination::File(path) => Self::File { file: LogFile::new(path), bytes: Vec::new(), records: 0 },
        }
    }

    fn open(&mut self) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.open().map(drop),
            Self::Journal(journal) => {
                *journal = Some(Journal::open(Path::new(journal::SOCKET))?);
                Ok(())
            }
        }
    }

    fn is_behind(&self) -> bool {
        matches!(self, Self::File { bytes, .. } if !bytes.is_empty())
    }

    /// For a file only: the journal's reader sees the daemon's own warning beside the records.
    fn add_line(&mut self, line: String) {
        if let Self::File { bytes, .. } = self {
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
    }

    /// Takes what it has written out of `pending`.
    fn write(&mut self, pending: &mut Vec<Record>, counts: &Counts) -> io::Result<()> {
        let done = |records: usize| {
            counts.written.fetch_add(records as u64, Ordering::Relaxed);
            counts.queued.fetch_sub(records, Ordering::Relaxed);
        };
        match self {
            Self::File { file, bytes, records } => {
                for record in pending.drain(..) {
                    serde_json::to_writer(&mut *bytes, &record.fields()).expect("writing to memory");
                    bytes.push(b'\n');
                    *records += 1;
                }
                while !bytes.is_empty() {
                    let written = file.append(bytes)?;
                    if written == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    bytes.drain(..written);
                }
                done(std::mem::take(records));
            }
            Self::Journal(journal) => {
                while let Some(record) = pending.first() {
                    let sent = match journal {
                        Some(open) => open.send(record),
                        None => Err(io::ErrorKind::NotConnected.into()),
                    };
                    if sent.is_err() {
                        // It may have been started again.
                        let fresh = Journal::open(Path::new(journal::SOCKET))?;
                        fresh.send(record)?;
                        *journal = Some(fresh);
                    }
                    pending.remove(0);
                    done(1);
                }
            }
        }
        Ok(())
    }
}

/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

/// At a time, so that a storm's records are on disk soon.
const BATCH: usize = 256;
