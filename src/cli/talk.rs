//! Talks with the person at the terminal, on stderr: stdout may be for a program.

use std::io::{self, Write as _};

pub(crate) fn ask(question: &str) -> io::Result<String> {
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

pub(crate) fn tell(text: &str) {
    // Whoever has closed stderr does not want to know.
    let _ = writeln!(io::stderr(), "{text}");
}
