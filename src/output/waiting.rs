//! A line on a person's terminal while something takes long, so that no wait is silent. It goes when the wait is over.
//!
//! One line of our own and not `indicatif`: that brings five crates into a static program for a spinner.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{eprint, printable};

/// Shows the line until it is dropped.
pub struct Waiting {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Waiting {
    /// `text` is asked every second for what is waited for; it must not take long. Nothing is shown for a wait that is over
    /// in a moment, and where no person looks.
    pub fn begin(mut text: impl FnMut() -> String + Send + 'static) -> Self {
        if !io::stderr().is_terminal() {
            return Self { thread: None };
        }
        let (over, ended) = mpsc::channel::<()>();
        let shows = move || {
            let mut pause = SILENT;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let text = printable(&text()).replace('\n', " ");
                // A line that wraps could not be taken back.
                let width = super::terminal_width().unwrap_or(80).saturating_sub(2);
                let shown: String = text.chars().take(width).collect();
                eprint(&format!("\r\x1b[K{shown}"));
                pause = AGAIN;
            }
            if pause == AGAIN {
                eprint("\r\x1b[K");
            }
        };
        // Without a thread there is no line, and the work goes on.
        let thread = std::thread::Builder::new().spawn(shows).ok();
        Self { thread: thread.map(|thread| (over, thread)) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.thread.take() {
            drop(over);
            let _ = thread.join();
        }
    }
}

/// Shorter waits are no waits to a person.
const SILENT: Duration = Duration::from_millis(300);
const AGAIN: Duration = Duration::from_secs(1);
