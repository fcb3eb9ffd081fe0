//! A mistake in a configuration file.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::foreign_text;

/// Where it is, what it is, and what was probably meant. Never holds the value that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// Line and column, from 1.
    pub place: Option<(usize, usize)>,
    pub profile: Option<String>,
    pub message: String,
    /// The key or name that is nearest to what was written.
    pub suggestion: Option<String>,
}

impl Mistake {
    pub fn new(message: impl Into<String>) -> Self {
        Self { place: None, profile: None, message: message.into(), suggestion: None }
    }
}

/// To follow the file's name, as in compilers' messages: `:2:1: unknown key`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, ":{line}:{column}: ")?,
            None => f.write_str(": ")?,
        }
        if let Some(profile) = &self.profile {
            write!(f, "profile `{profile}`: ")?;
        }
        // It can quote what was written.
        f.write_str(&foreign_text::message(self.message.clone()))?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        Ok(())
    }
}
