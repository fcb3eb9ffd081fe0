//! One mistake in a configuration file, told so that it can be mended at once.

use std::fmt;
use std::ops::Range;

/// Where it is, what it is, and what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    profile: Option<String>,
    message: String,
    suggestion: Option<String>,
}

impl Mistake {
    /// Takes serde's and TOML's message apart; the offending key is known, its value is never shown.
    pub(super) fn of(text: &str, profile: Option<&str>, error: &toml::de::Error) -> Self {
        let said = error.message();
        let mut mistake = Self {
            place: error.span().map(|span| place(text, span.start)),
            profile: profile.map(str::to_owned),
            message: said.lines().next().unwrap_or_default().to_owned(),
            suggestion: None,
        };
        let quoted = quoted(said);
        if said.starts_with("unknown field") || said.starts_with("unknown variant") {
            let what = if said.starts_with("unknown field") { "key" } else { "kind" };
            if let [unknown, expected @ ..] = quoted.as_slice() {
                mistake.message = format!("unknown {what} `{unknown}`");
                if !expected.is_empty() {
                    mistake.message += &format!("; known here: {}", expected.join(", "));
                }
                return mistake.suggest(unknown, expected);
            }
        } else if said.starts_with("missing field") && quoted == ["provider"] {
            let name = profile.unwrap_or("NAME");
            mistake.message = format!("there is no provider; add a [profile.{name}.provider.KIND] table");
        } else if said.starts_with("invalid type") || said.starts_with("invalid value") {
            // serde repeats the value: keep what was expected, not what was there.
            let expected = said.split_once("expected ").map_or("another type", |(_, expected)| expected);
            mistake.message = format!("wrong type of value: expected {expected}");
        }
        mistake
    }

    pub(super) fn at(text: &str, span: Range<usize>, message: &str) -> Self {
        Self { place: Some(place(text, span.start)), ..Self::plain(message) }
    }

    /// At the first line that begins with `key`.
    pub(super) fn find(text: &str, key: &str, message: &str) -> Self {
        let line = text.lines().position(|line| line.trim_start().starts_with(key));
        Self { place: line.map(|line| (line + 1, 1)), ..Self::plain(message) }
    }

    pub(super) fn plain(message: &str) -> Self {
        Self { place: None, profile: None, message: message.to_owned(), suggestion: None }
    }

    /// Adds the nearest of `known` to `unknown`, if one is near enough to be a typo.
    pub(super) fn suggest(mut self, unknown: &str, known: &[&str]) -> Self {
        let near = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(unknown, known), *known))
            .filter(|(distance, known)| *distance <= known.len().max(4) / 3 + 1)
            .min();
        self.suggestion = near.map(|(_, known)| known.to_owned()).or(self.suggestion);
        self
    }

    /// The same with one more key that was possible there.
    pub(super) fn or_expected(self, also: &str) -> Self {
        let unknown = quoted(&self.message).first().map(|unknown| (*unknown).to_owned());
        match unknown {
            Some(unknown) if self.suggestion.is_none() => self.suggest(&unknown, &[also]),
            _ => self,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, ":{line}:{column}: ")?,
            None => f.write_str(": ")?,
        }
        if let Some(profile) = &self.profile {
            write!(f, "profile `{profile}`: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        Ok(())
    }
}

fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The words between backquotes.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}
