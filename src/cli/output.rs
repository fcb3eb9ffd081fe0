//! Standard output: whole, checked, and in colour only where a person looks.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use super::failure::{Exit, Failure};
use crate::env::Env;

/// Writes and flushes. A reader that has gone away is no error: it had what it wanted.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::silent(Exit::Success as u8)),
        Err(error) => Err(Failure::new(Exit::Output, format!("cannot write to standard output: {error}"))),
    }
}

/// [`print`] with a line end.
pub(super) fn print_line(text: impl Into<String>) -> Result<(), Failure> {
    let mut line = text.into();
    line.push('\n');
    print(&line)
}

pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The few colours in use, or none.
#[derive(Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// Colour on a terminal that has it, unless NO_COLOR is set (no-color.org).
    pub(super) fn find(env: &Env) -> Self {
        let wanted = env.var("NO_COLOR").is_none() && env.var("TERM").is_none_or(|term| term != "dumb");
        Self(wanted && is_terminal())
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(false)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
