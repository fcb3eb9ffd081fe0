//! The keys that are pressed while `status --watch` shows: `q` ends it.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal gives each key at once, and shows none, until this is dropped.
pub(super) struct Keys {
    before: Termios,
}

impl Keys {
    /// `None` if nobody types here: no terminal, or this is in the background, where changing it would stop us.
    pub(super) fn take() -> Option<Self> {
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
    pub(super) fn end_within(&self, timeout: Duration) -> bool {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(timeout).ok().as_ref()) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        let mut pressed = [0; 16];
        match rustix::io::read(&stdin, &mut pressed) {
            // The terminal is gone.
            Ok(0) | Err(_) => true,
            Ok(read) => pressed[..read].iter().any(|key| b"qQ\x03\x04".contains(key)),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
