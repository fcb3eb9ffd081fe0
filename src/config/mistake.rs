//! Describes a mistake in the configuration file so that it can be fixed at once.

use std::ops::Range;

use toml::de::DeTable;

use crate::error::Mistake;
use crate::error::foreign::{DeserializeFault, TomlFault, deserialize_fault, toml_fault};
use crate::profile;
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
    let name = profile.unwrap_or("NAME");
    let key = error.span().and_then(|span| key_before(text, span.start));
    let (message, suggestion) = match deserialize_fault(error.message()) {
        DeserializeFault::UnknownKey { found: "provider", .. } if profile.is_none() => {
            ("a provider is that of a profile: write [profile.NAME.provider.KIND]".to_owned(), None)
        }
        DeserializeFault::UnknownKey { found, .. } if profile.is_none() && is_of_a_profile(found) => {
            (format!("`{found}` is a key of a profile: write it below [profile.NAME]"), None)
        }
        DeserializeFault::UnknownKey { found, known } => unknown("key", found, known, more_keys),
        // What is written behind `=` is shown only if it is nearly what was meant.
        DeserializeFault::UnknownVariant { found, known } if is_value(text, error) => {
            let wanted: Vec<_> = known.iter().map(|word| format!("\"{word}\"")).collect();
            let key = key.map_or("it", |(key, _)| key);
            let suggestion = nearest(found, known).map(str::to_owned);
            (format!("`{key}` must be one of {}", wanted.join(", ")), suggestion)
        }
        DeserializeFault::UnknownVariant { found, known } => unknown("provider", found, known, &[]),
        DeserializeFault::MissingKey("provider") => {
            let message = format!(
                "there is no provider; add a [profile.{name}.provider.KIND] table, or `upstream` for another daemon's tokens"
            );
            (message, None)
        }
        DeserializeFault::NotAKind => {
            (format!("there is no provider; write [profile.{name}.provider.KIND]"), None)
        }
        DeserializeFault::WrongValue { .. } if key.is_some_and(|(key, _)| key == "provider") => {
            (format!("`provider` must be a table: write [profile.{name}.provider.KIND]"), None)
        }
        DeserializeFault::WrongValue { expected } => {
            (wrong_value(text, error.span(), expected.unwrap_or("of another type")), None)
        }
        DeserializeFault::MissingKey(key) => (format!("`{key}` is missing"), None),
        DeserializeFault::Other => (not_toml(text, error).unwrap_or_else(|| first_line.to_owned()), None),
    };
    let place = error.span().map(|span| place(text, span.start));
    Mistake { place, profile: profile.map(str::to_owned), message, suggestion }
}

/// Whether the error is about what stands behind `=`, not about the name of a table.
pub(super) fn is_value(text: &str, error: &toml::de::Error) -> bool {
    error.span().is_some_and(|span| text.get(span).is_some_and(|word| word.starts_with(['"', '\''])))
}

/// Whether it is one of the keys of [profile.NAME], as serde lists them.
fn is_of_a_profile(key: &str) -> bool {
    let error = toml::from_str::<profile::Config>("not-a-key = 1").err();
    error.is_some_and(|error| match deserialize_fault(error.message()) {
        DeserializeFault::UnknownKey { known, .. } => known.contains(&key),
        _ => false,
    })
}

/// What is wrong with what is not TOML, and what to write.
fn not_toml(text: &str, error: &toml::de::Error) -> Option<String> {
    let at = error.span()?.start;
    let line = || text.get(..at).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
    let head = |line: &str| line.trim_start().starts_with('[');
    Some(match toml_fault(error.message())? {
        TomlFault::DuplicateKey => {
            let written = error.span().and_then(|span| text.get(span)).unwrap_or_default();
            match head(line()) {
                true => "this table is there twice: put all of its keys below one of the two".to_owned(),
                false => format!("`{written}` is there twice in one table: remove one of the two"),
            }
        }
        TomlFault::NoQuotes => {
            let key = key_before(text, at).map_or("KEY", |(key, _)| key);
            let typographic = text.get(at..).is_some_and(|rest| rest.starts_with(['“', '”', '„', '‘', '’']));
            let why = if typographic { "these quotes are not TOML's" } else { "text must be in quotes" };
            format!("{why}: write {key} = \"...\"")
        }
        TomlFault::NoClosingQuote => {
            "the closing quote is missing, or the text is longer than its line".to_owned()
        }
        TomlFault::NoClosingBracket => "the closing bracket is missing".to_owned(),
        TomlFault::LineEnds => {
            "a line ends with a carriage return alone: save the file with the line ends of Unix".to_owned()
        }
        TomlFault::NoKey if text.trim_start().starts_with('{') => {
            "this is JSON; the file must be TOML, as in wandb-cred-config(5)".to_owned()
        }
        TomlFault::NoKey => "a line must be `key = value`, the [head] of a table, or a # comment".to_owned(),
    })
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
        "u16" => "a whole number from 0 to 65535",
        "u8" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
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

/// Where the key stands that the message begins with, if it is one of this table: what is known only when the whole table has
/// been read has no place of its own.
pub(super) fn named(table: &DeTable<'_>, message: &str) -> Option<Range<usize>> {
    let name = message.strip_prefix('`')?.split('`').next()?;
    table.get_key_value(name).map(|(key, _)| key.span())
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
