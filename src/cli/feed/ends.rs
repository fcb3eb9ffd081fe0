//! What ends a feed: its reader goes away, or the process that it is for ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::cli::command_error::CommandError;
use crate::clock::Clock;
use crate::error::Exit;

pub(super) struct Ends {
    reader: Option<OwnedFd>,
    process: Option<Watched>,
    clock: Clock,
}

enum Watched {
    /// Readable once it has ended.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code))]
    Descriptor(OwnedFd),
    /// Where there are no such descriptors.
    Number(Pid),
}

impl Ends {
    /// `reader` is our end of what it reads.
    pub(super) fn new(reader: Option<&dyn AsFd>, process: Option<u32>) -> Result<Self, CommandError> {
        let failed = |error: std::io::Error| {
            CommandError::new(Exit::System, format!("cannot watch the reader: {error}"))
        };
        let reader = reader.map(|reader| reader.as_fd().try_clone_to_owned()).transpose().map_err(failed)?;
        let process = process.map(watch).transpose()?;
        Ok(Self { reader, process, clock: Clock::system() })
    }

    /// Waits until `answer` can be read, or for `timeout`. False if an end was reached.
    pub(super) fn wait(&self, answer: Option<&dyn AsFd>, timeout: Duration) -> bool {
        let deadline = self.clock.now().boot + timeout;
        let mut reader = self.reader.as_ref().map(AsFd::as_fd);
        loop {
            let left = deadline.saturating_sub(self.clock.now().boot);
            let slice = match &self.process {
                Some(Watched::Number(pid)) if !runs(*pid) => return false,
                Some(Watched::Number(_)) => left.min(LOOK),
                _ => left,
            };
            match self.poll(reader, answer.map(AsFd::as_fd), slice) {
                Polled::End => return false,
                Polled::Answer => return true,
                // A kind of file that cannot be waited for.
                Polled::NoReader => reader = None,
                Polled::Nothing if left.is_zero() => return true,
                Polled::Nothing => {}
            }
        }
    }

    fn poll(&self, reader: Option<BorrowedFd<'_>>, answer: Option<BorrowedFd<'_>>, wait: Duration) -> Polled {
        let process = match &self.process {
            Some(Watched::Descriptor(descriptor)) => Some(descriptor.as_fd()),
            _ => None,
        };
        let all = [(reader, PollFlags::empty()), (process, PollFlags::IN), (answer, PollFlags::IN)];
        let mut fds: Vec<_> =
            all.iter().filter_map(|(fd, flags)| fd.as_ref().map(|fd| PollFd::new(fd, *flags))).collect();
        if poll(&mut fds, Timespec::try_from(wait).ok().as_ref()).is_err() {
            return Polled::Nothing;
        }
        let mut found = fds.iter().map(PollFd::revents);
        let mut of = |fd: &Option<BorrowedFd<'_>>| {
            fd.as_ref().and_then(|_| found.next()).unwrap_or(PollFlags::empty())
        };
        let (reader, process, answer) = (of(&reader), of(&process), of(&answer));
        if reader.intersects(PollFlags::ERR | PollFlags::HUP) || process.contains(PollFlags::IN) {
            Polled::End
        } else if !answer.is_empty() {
            Polled::Answer
        } else if !reader.is_empty() {
            Polled::NoReader
        } else {
            Polled::Nothing
        }
    }
}

enum Polled {
    End,
    Answer,
    NoReader,
    Nothing,
}

fn watch(pid: u32) -> Result<Watched, CommandError> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|pid| runs(*pid));
    let raw = raw.ok_or_else(|| CommandError::new(Exit::Usage, format!("there is no process {pid}")))?;
    #[cfg(target_os = "linux")]
    if let Ok(descriptor) = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) {
        return Ok(Watched::Descriptor(descriptor));
    }
    Ok(Watched::Number(raw))
}

fn runs(pid: Pid) -> bool {
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Where nothing tells of a process's end.
const LOOK: Duration = Duration::from_secs(2);
