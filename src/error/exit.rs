//! The exit codes of every program here, after sysexits(3).

use std::process::ExitCode;

/// How a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Success = 0,
    /// The command line is wrong.
    Usage = 64,
    /// No daemon answers, or there can be none.
    Unavailable = 69,
    /// A fault of this program.
    Software = 70,
    /// The system refused: no process, or no memory.
    System = 71,
    /// The output could not be written.
    Output = 74,
    /// The same command may work later.
    TryLater = 75,
    /// A person must sign in.
    NeedsLogin = 77,
    /// Nothing changes until the configuration does.
    Configuration = 78,
    /// The command to run exists, but cannot be run (as in sh).
    NotExecutable = 126,
    /// There is no such command to run (as in sh).
    NotFound = 127,
}

impl Exit {
    /// What the exit code of another program of ours means; `None` if it is no code of sysexits(3) that we use.
    pub fn from_code(code: i32) -> Option<Self> {
        [
            Self::Usage,
            Self::Unavailable,
            Self::Software,
            Self::System,
            Self::Output,
            Self::TryLater,
            Self::NeedsLogin,
            Self::Configuration,
        ]
        .into_iter()
        .find(|exit| *exit as i32 == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
