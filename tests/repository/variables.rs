//! The variables that providers read against the list by which daemons on demand are told apart: one that is missing there
//! would have two jobs with different identities share a daemon.

use wandb_cred::paths::IDENTITY_VARIABLES;

use crate::source::Source;

#[test]
fn every_variable_that_decides_an_identity_is_in_the_list() {
    let rooms = ["src/provider", "src/secrets", "src/oidc", "src/http", "src/exchange", "src/config.rs"];
    let mut missing = Vec::new();
    for source in Source::all() {
        let path = source.path.to_string_lossy().into_owned();
        if !rooms.iter().any(|room| path.contains(room)) {
            continue;
        }
        for (line, word) in &source.words {
            if is_variable(word)
                && !IDENTITY_VARIABLES.contains(&word.as_str())
                && !OTHERS.contains(&word.as_str())
            {
                missing.push(format!("{path}:{line}: {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "not in src/paths/identity.rs:\n{}", missing.join("\n"));
    assert!(IDENTITY_VARIABLES.is_sorted(), "keep the list in order");
}

fn is_variable(word: &str) -> bool {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    word.contains('_') && word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(fits)
}

/// Words of that form that are no variables, or that no identity depends on.
const OTHERS: [&str; 14] = [
    "CARGO_PKG_VERSION",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "SERVICE_DISABLED",
    "WANDB_API_KEY",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XDG_RUNTIME_DIR",
    "YOUR_ORGANIZATION",
    "WANDB_CREDENTIALS_FILE",
    "WANDB_CRED_SOCKET",
    "JOURNAL_STREAM",
];
