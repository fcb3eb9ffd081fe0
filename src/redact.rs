//! Makes foreign text that may quote a credential (a command's stderr, a server's error) fit to be shown: short, printable,
//! and without anything that looks like a credential.
//!
//! What is no secret stays, since it is what the reader needs: error codes, GUIDs, ARNs, host names, audiences. See
//! [`shape`] for how a secret looks. The work is linear, and bounded by how much may be shown.

use crate::foreign_text::{cut, words};

mod shape;

use shape::{is_prose, looks_secret, names_a_secret};

/// At most `most` characters of `text` on one line, with what looks like a credential and the queries of URLs replaced.
///
/// A word is taken for a credential if it looks like one, or if it is the value of something that is named like one.
pub fn redact(text: &str, most: usize) -> String {
    let read = cut(text, most);
    // The rest of a credential that is cut apart may no longer look like one.
    let read = if read.len() < text.len() { without_last_piece(read) } else { read };
    let mut out = String::new();
    let (mut scanned, mut length) = (0, 0);
    let mut before = Before::Nothing;
    for word in words(read) {
        if !out.is_empty() {
            out.push(' ');
        }
        before = push_word(&mut out, &word, before);
        length += out[scanned..].chars().count();
        scanned = out.len();
        if length > most {
            let end = out.char_indices().nth(most).map_or(out.len(), |(at, _)| at);
            out.truncate(end);
            out.push('…');
            break;
        }
    }
    out
}

/// What the word in front says of the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// "Invalid", "expired": a name that follows is said to be wrong, and not given a value.
    Complaint,
    /// A name like "token:", which may also be followed by a sentence.
    Name,
    /// A name like "password:" or "Authorization:", which is not.
    SureName,
}

fn push_word(out: &mut String, word: &str, before: Before) -> Before {
    if is_scheme(word) {
        // "Bearer" stands between the name and the value.
        out.push_str(word);
        return if before == Before::SureName { before } else { Before::Name };
    }
    let value = match before {
        Before::SureName => true,
        Before::Name => !is_prose(word),
        Before::Nothing | Before::Complaint => false,
    };
    if value {
        out.push_str(REDACTED);
        return Before::Nothing;
    }
    let mut rest = word;
    while let Some(at) = rest.find("://") {
        let scheme = rest[..at].char_indices().rfind(|(_, c)| !is_scheme_letter(*c));
        let scheme = scheme.map_or(0, |(at, c)| at + c.len_utf8());
        push_pieces(out, &rest[..scheme]);
        let (url, after) = rest[scheme..]
            .split_at(rest[scheme..].find(|c: char| URL_ENDS.contains(&c)).unwrap_or(rest.len() - scheme));
        push_url(out, url, at - scheme);
        rest = after;
    }
    let named = push_pieces(out, rest);
    match word.trim_matches(|c: char| !c.is_alphanumeric()) {
        name if named && (shape::is_sure_name(name) || before != Before::Complaint) => {
            if shape::is_sure_name(name) { Before::SureName } else { Before::Name }
        }
        name if shape::is_complaint(name) => Before::Complaint,
        _ => Before::Nothing,
    }
}

/// Host and path, without user, password, query and fragment. A path segment can be a credential too.
fn push_url(out: &mut String, url: &str, scheme: usize) {
    let (scheme, rest) = (&url[..scheme], &url[scheme + 3..]);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    push_pieces(out, scheme);
    out.push_str("://");
    for (i, segment) in rest.split('/').enumerate() {
        if i > 0 {
            out.push('/');
        }
        push_pieces(out, segment);
    }
}

/// A word by its parts, such as `{"name":"value"}` or `name=value`. Returns whether the last name, with its `=` or
/// `:`, names a secret whose value is still to come.
fn push_pieces(out: &mut String, word: &str) -> bool {
    let (mut last, mut named) = ("", false);
    for piece in word.split_inclusive(DELIMITERS) {
        let (core, end) = match piece.char_indices().last() {
            Some((at, c)) if !c.is_ascii_alphanumeric() => piece.split_at(at),
            _ => (piece, ""),
        };
        if !core.is_empty() {
            let secret = looks_secret(core) || (named && core.len() > 3);
            out.push_str(if secret { REDACTED } else { core });
            (named, last) = (false, core);
        }
        out.push_str(end);
        named |= matches!(end, "=" | ":") && names_a_secret(last);
    }
    named
}

/// Up to the last place at which a credential can end.
fn without_last_piece(text: &str) -> &str {
    text.rfind(|c: char| c.is_whitespace() || c.is_control() || DELIMITERS.contains(&c))
        .map_or(text, |at| &text[..at])
}

fn is_scheme(word: &str) -> bool {
    word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

/// Tokens have `_` as well: one in front of `://` must not be taken apart.
fn is_scheme_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-' | '_')
}

const DELIMITERS: [char; 12] = ['=', ':', ',', '"', '\'', '{', '}', '(', ')', '&', ';', '`'];

/// No URL holds these unescaped.
const URL_ENDS: [char; 7] = ['"', '<', '>', '`', '{', '}', '\''];

const REDACTED: &str = "[redacted]";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn credentials_are_replaced() {
        for text in [
            "got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2ln from server",
            "Authorization: Bearer abc123",
            "password=hunter2xx",
            "password: hunter",
            r#"{"access_token":"wb_at_planted"}"#,
            r#"{"access_token": "abc123"}"#,
            "https://user:hunter2xx@host/path?token=abc123",
            "https://host/eyJhbGciOiJSUzI1NiJ9",
            "token=abc123,https://host/path",
            r#"{"url":"https://host/path","secret":"abc123"}"#,
            "token: abc123",
            "client secret: abc123",
            "key AKIAIOSFODNN7EXAMPLEKEY",
            "ey\u{200b}JhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2ln",
            "pL4nted-c0mmand-Secret-5f2a9c-planted",
        ] {
            let shown = redact(text, 500);
            for secret in ["eyJ", "JhbG", "abc123", "hunter", "planted", "AKIA"] {
                assert!(!shown.contains(secret), "{text} -> {shown}");
            }
        }
    }

    #[test]
    fn facts_stay() {
        for text in [
            "cannot open /home/someone/a/rather/long/path/Token.json here",
            "could not resolve metadata.google.internal: no such host",
            "ERROR: (gcloud.auth) You do not currently have an active account selected.",
            "InvalidIdentityToken: Incorrect token audience",
            "ExpiredTokenException: Token expired: current date must be before the expiration date",
            "invalid_token: The token has expired",
            "Invalid token: audience mismatch",
            "Bearer token is missing",
            "AADSTS700016: Application with identifier '11111111-2222-3333-4444-555555555555' was not found",
            "api://AzureADTokenExchange is not api://fb60f99c-7a34-4190-8149-302f77469936",
            "https://login.microsoftonline.com/fb60f99c-7a34-4190-8149-302f77469936/v2.0",
            "not authorized to assume arn:aws:iam::123456789012:role/GitHubActionsDeployRole",
            "arn:aws:sts::123456789012:assumed-role/My-Role-Name/session-1234",
            "ERR_TLS_CERT_ALTNAME_INVALID",
            "UnauthorizedOperationException",
            "InternalServiceErrorException and AWSSecurityTokenServiceException",
            "projects/123456789012/locations/global/workloadIdentityPools/my-pool-2/providers/github",
            "my-sa@my-project-123456.iam.gserviceaccount.com",
            "sts.eu-west-1.amazonaws.com",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "system:serviceaccount:training-jobs:default-runner-2",
            "Timestamp: 2026-01-02T03:04:05Z",
        ] {
            assert_eq!(redact(text, 500), text);
        }
    }

    #[test]
    fn output_is_one_bounded_line() {
        let shown = redact(&"word\nword\u{1b}[31m ".repeat(500), 40);
        assert!(shown.chars().count() <= 41 && !shown.contains(['\n', '\u{1b}']), "{shown}");
    }

    #[test]
    fn random_secrets_do_not_come_through() {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = fastrand::Rng::with_seed(7);
        for (alphabet, length, most) in
            [(64, 24, 15), (64, 32, 2), (64, 40, 1), (62, 20, 20), (62, 32, 1), (62, 40, 0), (64, 64, 0)]
        {
            let mut shown = 0;
            for _ in 0..10_000 {
                let secret: String = (0..length).map(|_| LETTERS[random.usize(..alphabet)] as char).collect();
                shown += usize::from(redact(&secret, 500).contains(&secret));
            }
            assert!(shown <= most, "{shown} of 10,000 with {length} of {alphabet} letters");
        }
        for _ in 0..1000 {
            let hex: String =
                (0..40).map(|_| char::from_digit(random.u32(..16), 16).expect("a digit")).collect();
            assert_eq!(redact(&hex, 500), REDACTED);
        }
    }

    #[test]
    fn a_credential_that_the_limit_cuts_apart_is_not_shown() {
        let secret = "wb_at_0123456789abcdefghijklmnopqrstuvwxyz";
        for before in 0..60 {
            let text = format!("{}{secret}{}", "x:".repeat(40 * 8 - before), "y ".repeat(40_000));
            let shown = redact(&text, 40);
            assert!(!shown.contains("wb_a") && !shown.contains("012345"), "{before}: {shown}");
        }
    }

    #[test]
    fn the_time_per_byte_is_bounded() {
        let clock = Clock::system();
        for unit in [
            ":",
            "=",
            "\"",
            "a:",
            "://",
            "token=",
            "/",
            "http://",
            "\u{202e}",
            " ",
            "a",
            "A-",
            "{\"token\":",
            "\n",
        ] {
            let text = unit.repeat(1024 * 1024 / unit.len());
            let before = clock.now().boot;
            let shown = redact(&text, 300);
            let took = clock.now().boot - before;
            assert!(took < Duration::from_millis(200), "1 MiB of {unit:?} took {took:?}");
            assert!(shown.chars().count() <= 301);
        }
    }
}
