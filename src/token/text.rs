//! Token text as people and programs hand it over: cleaned in one way whatever it came from, and described where it is
//! not one JWT.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::decode_part;
use crate::error::Malformed;

/// The text in a file or a program's output: UTF-8, or UTF-16 with a byte order mark (PowerShell's `>`). `None` if it
/// is no text.
pub fn of_bytes(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let wide = |unit: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<String, _>>().ok()
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => wide(u16::from_le_bytes, rest)?,
        [0xfe, 0xff, rest @ ..] => wide(u16::from_be_bytes, rest)?,
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => std::str::from_utf8(rest).ok()?.to_owned(),
    };
    Some(Zeroizing::new(text))
}

/// The JWT alone: without a byte order mark, white space, quotes, `Bearer` or `NAME=` in front, and in one piece where
/// a terminal or a mail program broke it into lines.
pub fn bare(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    let mut text = trim(raw);
    // Each round reads all of it, and nobody labels a token more often.
    for _ in 0..8 {
        let shorter = trim(without_label(without_quotes(text)));
        if shorter.len() == text.len() {
            break;
        }
        text = shorter;
    }
    match text.as_bytes().first() {
        None => Err(Malformed::Empty),
        Some(b'{' | b'[') => Err(Malformed::Json),
        Some(b'<') => Err(Malformed::Page),
        Some(_) if text.contains(char::is_whitespace) => in_pieces(text),
        Some(_) => Ok(Cow::Borrowed(text)),
    }
}

/// Text with white space inside.
fn in_pieces(text: &str) -> Result<Cow<'_, str>, Malformed> {
    let lines: Vec<&str> = text.lines().map(trim).filter(|line| !line.is_empty()).collect();
    let alone = |line: &&str| is_jwt(trim(without_label(without_quotes(line))));
    let jwts: Vec<usize> = (1..).zip(&lines).filter(|(_, line)| alone(line)).map(|(at, _)| at).collect();
    let joined: Zeroizing<String> = Zeroizing::new(text.split_whitespace().collect());
    if jwts.is_empty() && is_jwt(&joined) {
        return Ok(Cow::Owned(joined.to_string()));
    }
    match lines.len() {
        1 => Err(Malformed::Spaces),
        count => Err(Malformed::Lines { count, jwts }),
    }
}

/// Whether it has three parts of base64url, the first a header.
pub fn is_jwt(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let [header, payload, signature] = parts[..] else { return false };
    let good = |part: &str| !part.is_empty() && part.bytes().all(is_base64url);
    good(payload) && good(signature) && decode_part(header).is_some()
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// White space, control characters, and what is not seen: a byte order mark, zero-width characters.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c.is_control() || INVISIBLE.contains(&c))
        .trim_end_matches("\\n")
        .trim_end_matches("\\r")
}

const INVISIBLE: [char; 6] = ['\u{feff}', '\u{fffe}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}'];

/// Quotes around it, and what follows them in JSON, YAML or a program.
fn without_quotes(text: &str) -> &str {
    let text = text.trim_end_matches([',', ';']);
    QUOTES.iter().find_map(|(open, close)| text.strip_prefix(*open)?.strip_suffix(*close)).unwrap_or(text)
}

const QUOTES: [(char, char); 5] =
    [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];

/// `Bearer `, `Authorization: Bearer `, `TOKEN=`, `export TOKEN=`, `id_token: `.
fn without_label(text: &str) -> &str {
    if let Some((scheme, rest)) = text.split_once(char::is_whitespace)
        && SCHEMES.iter().any(|known| scheme.trim_end_matches(':').eq_ignore_ascii_case(known))
    {
        return rest;
    }
    // A JWT itself holds neither.
    let Some((name, rest)) = text.split_once(['=', ':']) else { return text };
    let name = name.trim().trim_start_matches("export ").trim();
    let named = !name.is_empty()
        && name.bytes().all(|byte| byte == b'-' || byte == b'_' || byte.is_ascii_alphanumeric());
    if named { rest } else { text }
}

const SCHEMES: [&str; 3] = ["bearer", "jwt", "token"];

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2ln";

    #[test]
    fn what_stands_around_a_jwt_is_dropped() {
        for raw in [
            "\u{feff}{}",
            " {}\r\n",
            "{}\0",
            "\u{200b}{}\u{200b}",
            "Bearer {}",
            "bearer  {}\n",
            "BEARER: {}",
            "Authorization: Bearer {}",
            "JWT {}",
            "\u{feff}Bearer {}",
            "\"{}\"",
            "'{}'\n",
            "\"Bearer {}\"",
            "Bearer \"{}\"",
            "`{}`",
            "\u{201c}{}\u{201d}",
            "\"{}\",",
            "{}\\n",
            "TOKEN={}",
            "export WANDB_ID_TOKEN='{}';",
            "id_token: {}",
        ] {
            let raw = raw.replace("{}", JWT);
            assert_eq!(bare(&raw).as_deref(), Ok(JWT), "{raw:?}");
        }
    }

    #[test]
    fn a_jwt_broken_into_lines_is_put_together() {
        for raw in [
            "eyJhbGciOiJSUzI1NiJ9.\neyJzdWIiOiJtZSJ9.\nc2ln",
            "eyJhbGciOiJS\r\n  UzI1NiJ9.eyJzdWIi\r\n  OiJtZSJ9.c2ln\r\n",
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiO iJtZSJ9.c2ln",
            "\"eyJhbGciOiJSUzI1NiJ9.\neyJzdWIiOiJtZSJ9.c2ln\"",
        ] {
            assert_eq!(bare(raw).as_deref(), Ok(JWT), "{raw:?}");
        }
    }

    #[test]
    fn what_is_not_one_jwt_is_described() {
        let lines = |count, jwts: &[usize]| Malformed::Lines { count, jwts: jwts.to_vec() };
        for (raw, seen) in [
            ("\u{feff} \n", Malformed::Empty),
            ("Bearer ", Malformed::NotThreeParts { count: 1 }),
            ("{\"token\":\"x\"}", Malformed::Json),
            ("<html>", Malformed::Page),
            (&format!("WARNING: old\n{JWT}"), lines(2, &[2])),
            (&format!("{JWT}\nexpires at noon\n"), lines(2, &[1])),
            (&format!("a\n\nBearer {JWT}\n{JWT}"), lines(3, &[2, 3])),
            ("not\nlogged in", lines(2, &[])),
            ("you are not logged in", Malformed::Spaces),
        ] {
            let found = match bare(raw) {
                Ok(text) => Malformed::NotThreeParts { count: text.split('.').count() },
                Err(found) => found,
            };
            assert_eq!(found, seen, "{raw:?}");
        }
    }

    #[test]
    fn text_may_be_utf_16() {
        let wide: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(JWT.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(of_bytes(&wide).as_deref().map(String::as_str), Some(JWT));
        let wide: Vec<u8> =
            [0xfe, 0xff].into_iter().chain(JWT.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        assert_eq!(of_bytes(&wide).as_deref().map(String::as_str), Some(JWT));
        assert_eq!(of_bytes(b"\xef\xbb\xbfx").as_deref().map(String::as_str), Some("x"));
        assert_eq!(of_bytes(b"\x80"), None);
    }
}
