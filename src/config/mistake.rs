//! Describes a mistake in the configuration file so that it can be fixed at once.

use std::ops::Range;

use crate::error::Mistake;
use crate::error::foreign::{DeserializeFault, deserialize_fault};
use crate::spelling::nearest;

/// From an error of `toml` or serde. The key is shown, its value never is.
pub(super) fn from_toml(text: &str, profile: Option<&str>, error: &toml::de::Error) -> Mistake {
    from_table(text, profile, error, &[])
}

/// As [`from_toml`], for a table that has `more_keys` beside those that serde knows.
pub(super) fn from_table(
    text: &str,
    profile: Option<&str>,
    error: &toml::de::Error,
    more_keys: &[&str],
) -> Mistake {
    let first_line = error.message().lines().next().unwrap_or_default();
    let (message, suggestion) = match deserialize_fault(error.message()) {
        DeserializeFault::UnknownKey { found, known } => unknown("key", found, known, more_keys),
        DeserializeFault::UnknownVariant { found, known } => unknown("kind", found, known, &[]),
        DeserializeFault::MissingKey("provider") => {
            let name = profile.unwrap_or("NAME");
            let message = format!(
                "there is no provider; add a [profile.{name}.provider.KIND] table, or `upstream` for another daemon's tokens"
            );
            (message, None)
        }
        DeserializeFault::WrongValue { expected } => {
            (format!("wrong type of value: expected {}", expected.unwrap_or("another type")), None)
        }
        DeserializeFault::MissingKey(_) | DeserializeFault::Other => (first_line.to_owned(), None),
    };
    let place = error.span().map(|span| place(text, span.start));
    Mistake { place, profile: profile.map(str::to_owned), message, suggestion }
}

pub(super) fn at(text: &str, span: Range<usize>, message: impl Into<String>) -> Mistake {
    Mistake { place: Some(place(text, span.start)), ..Mistake::new(message) }
}

/// At the first line that begins with `key`.
pub(super) fn at_key(text: &str, key: &str, message: impl Into<String>) -> Mistake {
    let line = text.lines().position(|line| line.trim_start().starts_with(key));
    Mistake { place: line.map(|line| (line + 1, 1)), ..Mistake::new(message) }
}

fn unknown<'a>(
    what: &str,
    found: &str,
    mut known: Vec<&'a str>,
    more: &[&'a str],
) -> (String, Option<String>) {
    known.extend(more);
    let message = match known.as_slice() {
        [] => format!("unknown {what} `{found}`"),
        known => format!("unknown {what} `{found}`; known here: {}", known.join(", ")),
    };
    (message, nearest(found, known).map(str::to_owned))
}

fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
