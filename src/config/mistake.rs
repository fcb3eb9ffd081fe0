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
            (wrong_value(text, error.span(), expected.unwrap_or("of another type")), None)
        }
        DeserializeFault::MissingKey(key) => (format!("`{key}` is missing"), None),
        DeserializeFault::Other => (first_line.to_owned(), None),
    };
    let place = error.span().map(|span| place(text, span.start));
    Mistake { place, profile: profile.map(str::to_owned), message, suggestion }
}

/// serde's words for what a value must be are Rust's.
fn wrong_value(text: &str, span: Option<Range<usize>>, expected: &str) -> String {
    let (key, inside) = match span.as_ref().and_then(|span| key_before(text, span.start)) {
        Some((key, inside)) => (Some(key), inside),
        None => (None, false),
    };
    let wanted = match expected {
        "a sequence" if key.is_some_and(|key| key.ends_with("ids")) => "a list of numbers",
        "a sequence" => "a list of strings",
        "a boolean" => "true or false",
        "a string" | "path string" => "a string, in quotes",
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a map" | "newtype variant" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    match key {
        Some(key) if inside => format!("each entry of `{key}` must be {wanted}"),
        Some(key) => format!("`{key}` must be {wanted}"),
        None => format!("wrong type of value: it must be {wanted}"),
    }
}

/// The key of the value that begins at `at`, and whether that is an entry of a list.
fn key_before(text: &str, at: usize) -> Option<(&str, bool)> {
    let line = text.get(..at)?.rsplit('\n').next()?.trim_end();
    let (before, inside) = match line.strip_suffix('=') {
        Some(before) => (before, false),
        None => (line.split_once('=')?.0, true),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let key = before.trim_end().rsplit(|c| !fits(c)).next()?;
    (!key.is_empty()).then_some((key, inside))
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
