//! All mistakes of a file in one go, for `check`. serde stops at the first, so what was wrong is left out and the rest is
//! read again.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{Config, is_name, mistake, plain_http};
use crate::error::Mistake;
use crate::error::foreign::{DeserializeFault, deserialize_fault};
use crate::{profile, server};

/// In the order of the file. Empty if there is none.
pub(super) fn mistakes(text: &str) -> Vec<Mistake> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // The first may have caused the others, if they are in the same line.
        let mut found: Vec<_> = errors.iter().map(|error| mistake::from_toml(text, None, error)).collect();
        found.sort_by_key(|mistake| mistake.place);
        found.dedup_by_key(|mistake| mistake.place.map(|(line, _)| line));
        // A table that is there twice has all of its keys twice.
        let mut within = false;
        let mut lines = text.lines();
        let mut read = 0;
        found.retain(|mistake| {
            let Some((line, _)) = mistake.place else { return true };
            let passed: Vec<_> = lines.by_ref().take(line.saturating_sub(read)).collect();
            read = read.max(line);
            let is_head = |line: &&str| line.trim_start().starts_with('[');
            let own = passed.last().is_some_and(is_head);
            if passed.iter().any(is_head) {
                within = false;
            }
            let keep = !within || own;
            within |= own && mistake.message.starts_with("this table is there twice");
            keep
        });
        return found;
    }
    let mut root = root.into_inner();
    let profiles = root.remove("profile").map(toml::Spanned::into_inner);
    let mut found = Vec::new();
    every::<server::Config>(text, root, 0..text.len(), &mut |error| {
        found.push(mistake::from_table(text, None, error, &["profile"]));
    });
    if let Some(DeValue::Table(profiles)) = profiles {
        for (name, table) in profiles {
            let (head, name) = (name.span(), name.into_inner());
            if is_name(&name) {
                found.extend(of_profile(text, &name, head, table));
            }
        }
    }
    match Config::parse(text) {
        // What concerns the file as a whole and is not said yet.
        Err(whole)
            if !found.iter().any(|known| known.message == whole.message || known.place == whole.place) =>
        {
            found.push(whole);
        }
        Ok(config) if config.default_profile().is_none() && found.is_empty() => {
            let names: Vec<_> = config.names().collect();
            let message = format!(
                "there are several profiles ({}) and no default: add default-profile = \"{}\" above the first table",
                names.join(", "),
                names.first().unwrap_or(&"NAME")
            );
            found.push(Mistake::new(message));
        }
        _ => {}
    }
    found.sort_by_key(|mistake| mistake.place);
    found
}

fn of_profile(text: &str, name: &str, head: Range<usize>, table: toml::Spanned<DeValue<'_>>) -> Vec<Mistake> {
    let span = table.span();
    let DeValue::Table(mut table) = table.into_inner() else {
        return vec![mistake::at(text, head, format!("write [profile.{name}]"))];
    };
    let mut found = Vec::new();
    let kinds: Vec<_> = match table.get("provider").map(toml::Spanned::get_ref) {
        Some(DeValue::Table(kinds)) => {
            kinds.keys().map(|kind| (kind.span(), kind.get_ref().clone())).collect()
        }
        _ => Vec::new(),
    };
    // Keys of the provider where its kind belongs.
    if let Some(DeValue::Table(given)) = table.get("provider").map(toml::Spanned::get_ref)
        && let Some((key, _)) = given.iter().find(|(_, value)| !value.get_ref().is_table())
    {
        let kind = given.get("kind").or(given.get("type")).and_then(|kind| kind.get_ref().as_str());
        let kind = kind.filter(|kind| is_name(kind)).unwrap_or("KIND");
        let message = format!(
            "the provider's kind is the name of its table: write [profile.{name}.provider.{kind}], and its keys below that"
        );
        found.push(Mistake { profile: Some(name.to_owned()), ..mistake::at(text, key.span(), message) });
        table.remove("provider");
    } else if let Some((second, _)) =
        kinds.iter().max_by_key(|(span, _)| span.start).filter(|_| kinds.len() > 1)
    {
        let names: Vec<_> = kinds.iter().map(|(_, kind)| format!("`{kind}`")).collect();
        let message = format!("choose one provider: a profile has one, and here are {}", names.join(" and "));
        found.push(Mistake { profile: Some(name.to_owned()), ..mistake::at(text, second.clone(), message) });
        table.remove("provider");
    }
    let chosen = found.is_empty();
    let head = plain_http(&table).unwrap_or(head);
    let whole = table.clone();
    every::<profile::Config>(text, table, span, &mut |error| {
        let missing = deserialize_fault(error.message()) == DeserializeFault::MissingKey("provider");
        if chosen || !missing {
            let said = mistake::from_toml(text, Some(name), error);
            let head = mistake::named(&whole, error.message()).unwrap_or(head.clone());
            let place = said.place.or(mistake::at(text, head, "").place);
            found.push(Mistake { place, ..said });
        }
    });
    found
}

/// Tells of each error that reading `table` as a `T` meets.
fn every<'i, T: DeserializeOwned>(
    text: &str,
    mut table: DeTable<'i>,
    span: Range<usize>,
    tell: &mut dyn FnMut(&toml::de::Error),
) {
    let (mut removed, mut told): (Vec<String>, Vec<_>) = (Vec::new(), Vec::new());
    for _ in 0..MOST {
        let value = toml::Spanned::new(span.clone(), DeValue::Table(table.clone()));
        let Err(error) = T::deserialize(ValueDeserializer::from(value)) else { return };
        let fault = deserialize_fault(error.message());
        // It is missing because it was taken away.
        let ours =
            matches!(fault, DeserializeFault::MissingKey(key) if removed.iter().any(|known| known == key));
        // A table below a key that there is not is taken away piece by piece.
        let said = (error.message().to_owned(), error.span());
        if !ours && !told.contains(&said) {
            tell(&error);
            told.push(said);
        }
        let Some(wrong) = error.span() else { return };
        // What remains of a table without its kind, or without a key that it needs, would only be wrong again.
        let kind =
            matches!(fault, DeserializeFault::UnknownVariant { .. }) && !mistake::is_value(text, &error);
        let whole = ours || kind || matches!(fault, DeserializeFault::MissingKey(_));
        let Some(key) = take_away(&mut table, &wrong, whole) else { return };
        removed.push(key);
    }
}

/// Removes the innermost entry that holds `wrong`, or with `whole` the outermost. Returns its key.
fn take_away(table: &mut DeTable<'_>, wrong: &Range<usize>, whole: bool) -> Option<String> {
    let holds = |span: Range<usize>| span.start <= wrong.start && wrong.end <= span.end;
    let keys: Vec<_> = table.iter().map(|(key, value)| (key.clone(), key.span(), value.span())).collect();
    // A table's span is that of its head, so an entry further down is looked for in all of them.
    for (key, _, _) in &keys {
        if let Some(DeValue::Table(inner)) = table.get_mut(key).map(toml::Spanned::get_mut)
            && let Some(found) = take_away(inner, wrong, false)
        {
            if !whole {
                return Some(found);
            }
            table.remove(key);
            return Some(key.get_ref().clone().into_owned());
        }
    }
    let (key, _, _) = keys.into_iter().find(|(_, key, value)| holds(key.clone()) || holds(value.clone()))?;
    table.remove(&key);
    Some(key.into_inner().into_owned())
}

/// More than anybody wants to read at once.
const MOST: usize = 50;
