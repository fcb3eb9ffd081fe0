//! The name that was probably meant, for messages about one that does not exist.

/// The nearest of `known` to `unknown`, if one is near enough to be a typo, or begins with that word (`github` for
/// `github-actions`).
///
/// A long text is no misspelled name, and comparing it would take the product of the lengths for each name: 15 kB against
/// a thousand names took most of a minute.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if unknown.len() > LONGEST {
        return None;
    }
    let near: Vec<_> = known.into_iter().filter(|known| known.len() <= LONGEST).collect();
    // `OIDC`, `base_url`: another way to write the same.
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    if let Some(same) = near.iter().copied().find(|known| plain(known) == plain(unknown)) {
        return Some(same);
    }
    let begins = |known: &&str| known.strip_prefix(unknown).is_some_and(|rest| rest.starts_with('-'));
    if let Some(longer) = near.iter().copied().find(begins).filter(|_| !unknown.is_empty()) {
        return Some(longer);
    }
    near.into_iter()
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .filter(|(distance, known)| *distance <= known.len().max(4) / 3 + 1)
        .min()
        .map(|(_, known)| known)
}

/// In bytes: more than any key or profile has.
const LONGEST: usize = 100;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_typo_is_recognised_and_another_word_is_not() {
        let known = ["audience", "provider", "base-url"];
        assert_eq!(nearest("audeince", known), Some("audience"));
        assert_eq!(nearest("baseurl", known), Some("base-url"));
        assert_eq!(nearest("github", ["gitlab", "github-actions"]), Some("github-actions"));
        assert_eq!(nearest("OIDC", ["aws", "oidc"]), Some("oidc"));
        assert_eq!(nearest("GitHub_Actions", ["gitlab", "github-actions"]), Some("github-actions"));
        assert_eq!(nearest("something", known), None);
        assert_eq!(nearest("", []), None);
    }

    #[test]
    fn a_long_name_costs_nothing() {
        let known: Vec<String> = (0..1000).map(|number| format!("profile-{number}")).collect();
        let before = Clock::system().now().boot;
        assert_eq!(nearest(&"x".repeat(15_000), known.iter().map(String::as_str)), None);
        let long = "y".repeat(15_000);
        assert_eq!(nearest("profile", [long.as_str()]), None);
        let took = Clock::system().now().boot - before;
        assert!(took < Duration::from_millis(100), "{took:?}");
    }
}
