//! Standard output and standard error: how everything is printed, and whether a person reads it.
//!
//! `println!` panics when a write fails; nothing here does. A reader that goes away (`| head`) has read what it
//! wanted, so the program ends quietly; any other failed write is an error with its own exit code.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::env::Env;
use crate::error::Exit;
use crate::foreign_text::is_invisible;

mod waiting;
pub use waiting::Waiting;

/// Writes to standard output, and flushes.
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::from)
}

/// [`print`] with a line break.
pub fn print_line(text: impl Into<String>) -> Result<(), Error> {
    let mut line = text.into();
    line.push('\n');
    print(&line)
}

/// Writes to standard error. If that fails, there is nobody left to tell.
pub fn eprint(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// [`eprint`] with a line break.
pub fn eprint_line(text: &str) {
    eprint(&format!("{text}\n"));
}

/// Waits for `timeout`, or until the reader of standard output goes away. Returns whether it has.
///
/// A program that prints only now and then would otherwise not find out until it prints again.
pub fn wait_closed(timeout: Duration) -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let wait = Timespec::try_from(timeout).ok();
    match poll(&mut fds, wait.as_ref()) {
        Ok(0) => false,
        Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => true,
        // Interrupted, or a kind of file that cannot be polled (a terminal on macOS).
        _ => {
            std::thread::sleep(timeout);
            false
        }
    }
}

/// Whether standard output goes to a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard error goes to a terminal.
pub fn is_stderr_a_terminal() -> bool {
    io::stderr().is_terminal()
}

/// The columns of the terminal that standard error or standard output goes to.
pub fn terminal_width() -> Option<usize> {
    terminal_size().map(|(columns, _)| columns)
}

/// Columns and rows of that terminal.
pub fn terminal_size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let size = size.or_else(|_| rustix::termios::tcgetwinsize(io::stderr())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// Whether somebody reads standard error to its end, and so waits for all who have it open.
pub fn is_stderr_a_pipe() -> bool {
    use rustix::fs::{FileType, fstat};
    let kind = fstat(io::stderr()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    matches!(kind, Ok(FileType::Fifo | FileType::Socket))
}

/// Whether a person can be asked: questions go to standard error, answers come from standard input.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Whether standard error may have colour.
pub fn stderr_has_colour(env: &Env) -> bool {
    wants_colour(env, is_stderr_a_terminal())
}

/// Foreign text must not control the terminal. Line breaks stay.
pub fn printable(text: &str) -> String {
    let obeyed = |c: char| c.is_control() && c != '\n' || is_invisible(c);
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// Why standard output did not take what was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader went away.
    #[error("the reader of standard output went away")]
    Closed,
    #[error("cannot write to standard output: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error) }
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error {
            Error::Closed => Self::Success,
            Error::Failed(_) => Self::Output,
        }
    }
}

/// The few text styles in use, or none.
#[derive(Clone, Copy)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// Colour if standard output is a terminal that has it.
    pub fn detect(env: &Env) -> Self {
        Self { colour: wants_colour(env, is_terminal()) }
    }

    pub fn plain() -> Self {
        Self { colour: false }
    }

    pub fn has_colour(self) -> bool {
        self.colour
    }

    pub fn green(self, text: &str) -> String {
        self.apply("32", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.apply("33", text)
    }

    pub fn red(self, text: &str) -> String {
        self.apply("31", text)
    }

    pub fn faint(self, text: &str) -> String {
        self.apply("2", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.apply("1", text)
    }

    fn apply(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// `NO_COLOR` is that of no-color.org.
fn wants_colour(env: &Env, terminal: bool) -> bool {
    terminal && env.var("NO_COLOR").is_none() && env.var("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_unless_refused() {
        let wants =
            |vars: &[(&str, &str)], terminal| wants_colour(&Env::fixed(vars.iter().copied()), terminal);
        assert!(wants(&[("TERM", "xterm")], true));
        assert!(wants(&[("NO_COLOR", "")], true), "an empty NO_COLOR counts as unset");
        assert!(!wants(&[("NO_COLOR", "1")], true));
        assert!(!wants(&[("TERM", "dumb")], true));
        assert!(!wants(&[], false));
    }

    #[test]
    fn only_a_reader_that_went_away_is_no_failure() {
        let exit = |kind: ErrorKind| Exit::from(&Error::from(io::Error::from(kind)));
        assert_eq!(exit(ErrorKind::BrokenPipe), Exit::Success);
        assert_eq!(exit(ErrorKind::StorageFull), Exit::Output);
    }

    #[test]
    fn foreign_text_keeps_its_lines_and_loses_its_controls() {
        assert_eq!(printable("a\x1b[2J\nb\x07\u{202e}"), "a\u{fffd}[2J\nb\u{fffd}\u{fffd}");
    }
}
