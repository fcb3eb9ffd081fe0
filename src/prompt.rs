//! Questions to the person at the terminal, on standard error: standard output may be for a program.

use std::io::{self, Write as _};

/// The answer, without the white space around it.
pub fn ask(question: &str) -> io::Result<String> {
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
