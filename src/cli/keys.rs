//! The keys that are pressed while `status --watch` shows, or a sign-in is waited for.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use zeroize::Zeroizing;

/// The terminal gives each key at once, and shows none, until this is dropped.
pub(in crate::cli) struct Keys {
    before: Termios,
}

impl Keys {
    /// `None` if nobody types here: no terminal, or this is in the background, where changing it would stop us.
    pub(in crate::cli) fn take() -> Option<Self> {
        let stdin = io::stdin();
        let ours = || tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
        if !stdin.is_terminal() || !ours() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut now = before.clone();
        // Ctrl-C comes as a key too: a signal would leave the terminal as it is now.
        now.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(&stdin, OptionalActions::Now, &now).ok()?;
        Some(Self { before })
    }

    /// Whether a key that ends it is pressed within `timeout`.
    pub(in crate::cli) fn end_within(&self, timeout: Duration) -> bool {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(timeout).ok().as_ref()) {
            Ok(0) | Err(_) => false,
            Ok(_) => self.read().is_none_or(|pressed| pressed.iter().any(|key| b"qQ\x03\x04".contains(key))),
        }
    }

    /// What has been pressed. Waits for the first key; `None` if the terminal is gone.
    pub(in crate::cli) fn read(&self) -> Option<Zeroizing<Vec<u8>>> {
        // What is pasted may be a secret.
        let mut pressed = Zeroizing::new(vec![0; 1024]);
        let read = rustix::io::read(io::stdin(), &mut pressed[..]).ok().filter(|read| *read > 0)?;
        pressed.truncate(read);
        Some(pressed)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
