//! Makes foreign text (a command's stderr, a server's error) fit to be shown: short, printable, and
//! without anything that looks like a credential.

/// At most `most` characters of `text` on one line, with token-like words and URL queries replaced.
///
/// A word is taken for a credential if it is 20 characters or longer, holds a digit or an upper-case letter,
/// and is not a path; or if it is the value of something named like a secret. Rather one word too many than one too few.
pub fn redact(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut after_secret_name = false;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        if std::mem::take(&mut after_secret_name) {
            // "Bearer" stands between the name and the value.
            after_secret_name = is_scheme(word);
            out.push_str(if after_secret_name { word } else { REDACTED });
        } else {
            after_secret_name = is_scheme(word) || (word.ends_with([':', '=']) && names_a_secret(word));
            push_word(&mut out, word);
        }
        if out.chars().count() > most {
            let cut = out.char_indices().nth(most).map_or(out.len(), |(at, _)| at);
            out.truncate(cut);
            out.push('…');
            break;
        }
    }
    out
}

fn push_word(out: &mut String, word: &str) {
    if let Some((scheme, rest)) = word.split_once("://") {
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let start = scheme.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        out.push_str(start);
        out.push_str("://");
        // A path segment can be a credential too.
        for (i, segment) in rest.split('/').enumerate() {
            if i > 0 {
                out.push('/');
            }
            out.push_str(if i > 0 && looks_secret(segment) { REDACTED } else { segment });
        }
        return;
    }
    for (i, piece) in word.split_inclusive(['=', ':', ',', '"', '\'', '{', '}', '(', ')', '&']).enumerate() {
        let named = i > 0 && names_a_secret(word.get(..word.len() - piece.len()).unwrap_or_default());
        let (core, end) = match piece.char_indices().last() {
            Some((at, c)) if !c.is_ascii_alphanumeric() => piece.split_at(at),
            _ => (piece, ""),
        };
        let secret = looks_secret(core) || (named && core.len() > 3);
        out.push_str(if secret { REDACTED } else { core });
        out.push_str(end);
    }
}

fn looks_secret(word: &str) -> bool {
    let path = word.starts_with(['/', '~', '.']);
    let mixed = word.bytes().any(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    word.contains("eyJ") || word.contains("wb_at_") || (word.len() >= 20 && mixed && !path)
}

fn names_a_secret(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    ["token", "secret", "password", "passwd", "apikey", "api_key", "assertion", "authorization"]
        .iter()
        .any(|name| word.contains(name))
}

fn is_scheme(word: &str) -> bool {
    word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

const REDACTED: &str = "[redacted]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_replaced() {
        for text in [
            "got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2ln from server",
            "Authorization: Bearer abc123",
            "password=hunter2xx",
            r#"{"access_token":"wb_at_planted"}"#,
            "https://user:hunter2xx@host/path?token=abc123",
            "https://host/eyJhbGciOiJSUzI1NiJ9",
            "token: abc123",
            "key AKIAIOSFODNN7EXAMPLEKEY",
        ] {
            let shown = redact(text, 500);
            for secret in ["eyJ", "abc123", "hunter2", "planted", "AKIA"] {
                assert!(!shown.contains(secret), "{text} -> {shown}");
            }
        }
    }

    #[test]
    fn plain_words_paths_and_hosts_stay() {
        for text in [
            "cannot open /home/someone/a/rather/long/path/Token.json here",
            "could not resolve metadata.google.internal: no such host",
            "ERROR: (gcloud.auth) You do not currently have an active account selected.",
        ] {
            assert_eq!(redact(text, 500), text);
        }
    }

    #[test]
    fn output_is_one_bounded_line() {
        let shown = redact(&"word\nword\u{1b}[31m ".repeat(500), 40);
        assert!(shown.chars().count() <= 41 && !shown.contains(['\n', '\u{1b}']), "{shown}");
    }
}
