//! Other people's JSON: read leniently, refused precisely.
//!
//! Only what is asked for is looked at, so nothing else can make an answer unreadable. A value in another type than the
//! standard's is taken where it leaves no doubt (a number as text, one string where a list belongs); where it does leave
//! doubt, the [`Fault`] names the field and says what was found. No fault repeats a value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize as _, DeserializeOwned, Deserializer};
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

/// A JSON object, which may hold tokens: its strings are zeroed on drop.
pub struct Object(Map<String, Value>);

/// For our own files, which another version of this program may have written: the entries that this one can read.
///
/// # Errors
///
/// If it is no list.
pub fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    let entries = Vec::<Value>::deserialize(from)?;
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
}

/// The same for one value: the default in place of one that this version does not know.
///
/// # Errors
///
/// If it is no JSON.
pub fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).unwrap_or_default())
}

impl Object {
    /// Reads a document; a byte order mark in front is skipped.
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        match serde_json::from_slice(text) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(mut other) => {
                let found = kind(&other);
                wipe(&mut other);
                Err(Fault::NotAnObject(found))
            }
            Err(_) => Err(Fault::NotJson(look(text))),
        }
    }

    pub fn value(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Text, or a number as it is written. `None` if the field is missing, null or empty.
    pub fn text(&self, field: &'static str) -> Result<Option<Cow<'_, str>>, Fault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        match text(value) {
            Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            None => Err(Fault::wrong(field, value, "text")),
        }
    }

    /// The same, where there must be one.
    pub fn required_text(&self, field: &'static str) -> Result<Cow<'_, str>, Fault> {
        self.text(field)?.ok_or(Fault::Missing(field))
    }

    /// A number, or one that is written as text.
    pub fn number(&self, field: &'static str) -> Result<Option<f64>, Fault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        number(value).map(Some).ok_or_else(|| Fault::wrong(field, value, "a number"))
    }

    /// A list of texts, or one text with spaces between. What is no text in it is left out.
    pub fn texts(&self, field: &str) -> Option<Vec<String>> {
        match self.value(field)? {
            Value::String(one) => Some(one.split_whitespace().map(str::to_owned).collect()),
            Value::Array(many) => Some(many.iter().filter_map(|one| Some(text(one)?.into_owned())).collect()),
            _ => None,
        }
    }

    /// `true`, in any of its spellings.
    pub fn flag(&self, field: &str) -> bool {
        match self.value(field) {
            Some(Value::Bool(set)) => *set,
            Some(Value::String(text)) => text.trim().eq_ignore_ascii_case("true") || text.trim() == "1",
            Some(Value::Number(number)) => number.as_f64() == Some(1.0),
            _ => false,
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

/// Zeroes every string in it.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        _ => {}
    }
}

/// Text, a number as it is written, or the one text in a list.
pub fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Array(values) => match &values[..] {
            [one @ (Value::String(_) | Value::Number(_))] => text(one),
            _ => None,
        },
        _ => None,
    }
}

/// A finite number, or one that is written as text.
pub fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// What a value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(text) if text.is_empty() => "empty text",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What a document is that is not JSON, in words.
fn look(text: &[u8]) -> &'static str {
    let text = text.trim_ascii();
    match text.first() {
        None => "empty",
        Some(b'<') => "an HTML or XML page",
        Some(b'{' | b'[') => "broken or cut off",
        Some(_) => "other text",
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What it is instead.
    NotJson(&'static str),
    NotAnObject(&'static str),
    Missing(&'static str),
    Wrong {
        field: &'static str,
        found: &'static str,
        wanted: &'static str,
    },
}

impl Fault {
    pub fn wrong(field: &'static str, found: &Value, wanted: &'static str) -> Self {
        Self::Wrong { field, found: kind(found), wanted }
    }

    /// The field it is about, if it is about one.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::NotJson(_) | Self::NotAnObject(_) => None,
            Self::Missing(field) | Self::Wrong { field, .. } => Some(field),
        }
    }
}

/// To follow "it" or the name of the document: `is not JSON but an HTML or XML page`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(found) => write!(f, "is not JSON but {found}"),
            Self::NotAnObject(found) => write!(f, "is {found} where a JSON object is needed"),
            Self::Missing(field) => write!(f, "has no `{field}`"),
            Self::Wrong { field, found, wanted } => {
                write!(f, "has {found} in `{field}` where {wanted} is needed")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).expect("an object")
    }

    #[test]
    fn values_of_other_types_are_read_where_they_leave_no_doubt() {
        let object = object(
            "\u{feff}{\"a\":7,\"b\":\"7.5\",\"c\":[\"x\"],\"d\":\"one two\",\"e\":[\"x\",1,{}],\"f\":\"True\",\"g\":1,\"n\":null}",
        );
        assert_eq!(object.text("a"), Ok(Some("7".into())));
        assert_eq!(object.number("b"), Ok(Some(7.5)));
        assert_eq!(object.text("c"), Ok(Some("x".into())));
        assert_eq!(object.texts("d"), Some(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(object.texts("e"), Some(vec!["x".to_owned(), "1".to_owned()]));
        assert!(object.flag("f") && object.flag("g") && !object.flag("d"));
        assert_eq!(object.text("n"), Ok(None));
    }

    #[test]
    fn a_refusal_names_the_field_and_what_was_found_but_no_value() {
        let object = object(r#"{"a":{"planted":1},"b":"planted","c":["planted","x"]}"#);
        let said = |fault: Result<_, Fault>| fault.map(|_: ()| ()).expect_err("refused").to_string();
        assert_eq!(said(object.text("a").map(|_| ())), "has an object in `a` where text is needed");
        assert_eq!(said(object.number("b").map(|_| ())), "has text in `b` where a number is needed");
        assert_eq!(said(object.text("c").map(|_| ())), "has a list in `c` where text is needed");
        assert_eq!(said(object.required_text("d").map(|_| ())), "has no `d`");
    }

    #[test]
    fn what_is_not_json_is_described() {
        for (text, found) in [
            ("", "empty"),
            (" <!doctype html>", "an HTML or XML page"),
            ("{\"a\":", "broken or cut off"),
            ("service unavailable", "other text"),
        ] {
            assert_eq!(Object::parse(text.as_bytes()).err(), Some(Fault::NotJson(found)), "{text}");
        }
        assert_eq!(Object::parse(b"[1]").err(), Some(Fault::NotAnObject("a list")));
    }
}
