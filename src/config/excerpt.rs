//! A mistake with its line and a caret, as compilers show it. Only keys are shown: what is written behind `=` may be secret.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::mistake;
use crate::error::Mistake;
use crate::output;

/// A file that was read.
pub struct Excerpt {
    path: PathBuf,
    text: Zeroizing<String>,
}

impl Excerpt {
    pub(super) fn new(path: &Path, text: Zeroizing<String>) -> Self {
        Self { path: path.to_owned(), text }
    }

    /// A mistake in `key` of a table of a profile, or in that table as a whole.
    pub fn within(&self, profile: &str, table: &[&str], key: Option<&str>, message: String) -> Mistake {
        let place = self.table(profile, table).and_then(|(head, table)| {
            let key = key.and_then(|key| table.get_key_value(key)).map(|(key, _)| key.span());
            mistake::at(&self.text, key.unwrap_or(head), "").place
        });
        Mistake { place, profile: Some(profile.to_owned()), ..Mistake::new(message) }
    }

    fn table(&self, profile: &str, path: &[&str]) -> Option<(std::ops::Range<usize>, DeTable<'_>)> {
        let mut table = DeTable::parse(&self.text).ok()?.into_inner();
        let mut head = 0..0;
        for key in ["profile", profile].iter().chain(path) {
            let (found, value) = table.remove_entry(*key)?;
            head = found.span();
            let DeValue::Table(inner) = value.into_inner() else { return None };
            table = inner;
        }
        Some((head, table))
    }

    /// `FILE:LINE:COLUMN: what is wrong`, then the line.
    pub fn show(&self, mistake: &Mistake) -> String {
        let said = format!("{}{mistake}", self.path.display());
        let Some((number, column)) = mistake.place else { return said };
        let Some(line) = self.text.lines().nth(number - 1) else { return said };
        let (shown, hidden) = without_value(line);
        let column = column.min(shown.chars().count() + 1);
        // What is hidden is one sign wide.
        let column = hidden.map_or(column, |at| column.min(at));
        let word = |c: &char| c.is_alphanumeric() || "-_.".contains(*c);
        let width = shown.chars().skip(column - 1).take_while(word).count().max(1);
        let margin = " ".repeat(number.to_string().len());
        let shown = output::printable(&shown);
        format!(
            "{said}\n {margin} |\n {number} | {shown}\n {margin} | {}{}",
            " ".repeat(column - 1),
            "^".repeat(width)
        )
    }
}

/// The line with an ellipsis for what is written in it, and the column of the ellipsis.
fn without_value(line: &str) -> (String, Option<usize>) {
    let line = line.trim_end();
    if line.trim_start().starts_with('[') {
        // The head of a table; a comment behind it may hold anything.
        let end = line.find('#').unwrap_or(line.len());
        return (line[..end].trim_end().to_owned(), None);
    }
    let key = |c: char| c.is_ascii_alphanumeric() || "-_. \t".contains(c);
    let end = line.find(|c: char| !key(c)).unwrap_or(line.len());
    let (before, rest) = line.split_at(end);
    match rest.strip_prefix('=') {
        Some(_) => {
            let shown = format!("{before}= …");
            let column = shown.chars().count();
            (shown, Some(column))
        }
        // Neither a key nor a table: it could be the middle of a value.
        None => ("…".to_owned(), Some(1)),
    }
}
