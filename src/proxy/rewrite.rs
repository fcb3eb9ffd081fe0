//! The one change to an answer: addresses of files at the base URL become the proxy's, since a client sends its key, which
//! nobody else takes, only where it got it for.
//!
//! JSON has many spellings of a text (`\/`, `\u002f`), and a server may write its own port or not. An address can begin in
//! one piece of the body and end in another.

use bytes::{Bytes, BytesMut};
use url::Url;

/// Rewrites a body, piece by piece.
#[derive(Debug)]
pub struct Rewrite {
    needles: Vec<Needle>,
    replacement: Vec<u8>,
    /// The end of the last piece, which may be the beginning of an address.
    held: Vec<u8>,
}

/// What an address begins with.
#[derive(Debug)]
struct Needle {
    text: Vec<u8>,
    /// Scheme and host: upper and lower case are the same up to here.
    any_case: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    No,
    /// The text ends before it is decided.
    Perhaps,
    /// This many bytes are the address's beginning.
    Yes(usize),
}

impl Rewrite {
    /// `bases` are spellings of the base URL, without a slash at the end; `ours` is the proxy's address.
    pub fn new(bases: &[&str], ours: &str) -> Self {
        let needles = bases.iter().flat_map(|base| needles(base)).collect();
        Self { needles, replacement: format!("{ours}/files/").into_bytes(), held: Vec::new() }
    }

    /// The next piece, but for what cannot be decided yet.
    pub fn piece(&mut self, piece: Bytes) -> Bytes {
        let text = if self.held.is_empty() {
            piece
        } else {
            let mut joined = BytesMut::from(&*std::mem::take(&mut self.held));
            joined.extend_from_slice(&piece);
            joined.freeze()
        };
        let mut out = BytesMut::new();
        // From where on `text` is not in `out` yet, and from where on it was not looked at.
        let (mut copied, mut at) = (0, 0);
        while let Some(quote) = text[at..].iter().position(|byte| *byte == b'"').map(|place| at + place) {
            at = quote + 1;
            match self.look(&text[at..]) {
                Found::No => {}
                Found::Yes(length) => {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(&self.replacement);
                    at += length;
                    copied = at;
                }
                Found::Perhaps => {
                    self.held = text[quote..].to_vec();
                    if copied == 0 {
                        return text.slice(..quote);
                    }
                    out.extend_from_slice(&text[copied..quote]);
                    return out.freeze();
                }
            }
        }
        if copied == 0 {
            return text;
        }
        out.extend_from_slice(&text[copied..]);
        out.freeze()
    }

    /// What was held back, at the end.
    pub fn end(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }

    fn look(&self, text: &[u8]) -> Found {
        let mut found = Found::No;
        for needle in &self.needles {
            match needle.look(text) {
                yes @ Found::Yes(_) => return yes,
                Found::Perhaps => found = Found::Perhaps,
                Found::No => {}
            }
        }
        found
    }
}

impl Needle {
    fn look(&self, text: &[u8]) -> Found {
        let mut at = 0;
        for (place, wanted) in self.text.iter().enumerate() {
            let (byte, length) = match character(&text[at..]) {
                Character::Is(byte, length) => (byte, length),
                Character::Other => return Found::No,
                Character::CutOff => return Found::Perhaps,
            };
            let same =
                if place < self.any_case { byte.eq_ignore_ascii_case(wanted) } else { byte == *wanted };
            if !same {
                return Found::No;
            }
            at += length;
        }
        Found::Yes(at)
    }
}

enum Character {
    /// An ASCII character, spelled in this many bytes.
    Is(u8, usize),
    Other,
    CutOff,
}

/// The first character of a JSON string's text.
fn character(text: &[u8]) -> Character {
    match text {
        [] | [b'\\'] => Character::CutOff,
        [b'\\', b'/', ..] => Character::Is(b'/', 2),
        [b'\\', b'u', rest @ ..] => {
            let digits = &rest[..rest.len().min(4)];
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return Character::Other;
            }
            if digits.len() < 4 {
                return Character::CutOff;
            }
            let value = digits
                .iter()
                .fold(0_u32, |value, digit| value * 16 + char::from(*digit).to_digit(16).unwrap_or_default());
            u8::try_from(value).map_or(Character::Other, |byte| Character::Is(byte, 6))
        }
        [b'\\', ..] => Character::Other,
        [byte, ..] => Character::Is(*byte, 1),
    }
}

/// A base URL with and without its scheme's own port.
fn needles(base: &str) -> Vec<Needle> {
    let mut needles = vec![Needle::new(base)];
    if let Ok(url) = base.parse::<Url>()
        && url.port().is_none()
        && let (Some(port), Some(host)) = (url.port_or_known_default(), url.host_str())
    {
        let path = url.path().trim_end_matches('/');
        needles.push(Needle::new(&format!("{}://{host}:{port}{path}", url.scheme())));
    }
    needles
}

impl Needle {
    fn new(base: &str) -> Self {
        let host = base.find("://").map_or(0, |place| place + 3);
        let any_case = base[host..].find('/').map_or(base.len(), |place| host + place);
        Self { text: format!("{base}/files/").into_bytes(), any_case }
    }
}

/// Whether a GraphQL request may ask for the address of a file. What cannot be read may.
pub fn asks_for_addresses(body: &[u8]) -> bool {
    let letter = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    body.windows(3).enumerate().any(|(at, word)| {
        word.eq_ignore_ascii_case(b"url")
            && !letter(body.get(at + 3))
            && (at == 0 || word[0] == b'U' || !letter(body.get(at - 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "http://127.0.0.1:4";

    fn rewritten(bases: &[&str], body: &[u8], size: usize) -> Vec<u8> {
        let mut rewrite = Rewrite::new(bases, OURS);
        let mut out = Vec::new();
        for piece in body.chunks(size) {
            out.extend_from_slice(&rewrite.piece(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&rewrite.end());
        out
    }

    #[test]
    fn every_spelling_becomes_the_proxys_wherever_the_body_is_cut() {
        let base = "https://api.wandb.ai";
        for (spelled, wanted) in [
            (r#"{"url":"https://api.wandb.ai/files/e/p/r/f.txt"}"#, true),
            (r#"{"url":"https:\/\/api.wandb.ai\/files\/e\/p\/r\/f.txt"}"#, true),
            (r#"{"url":"https:\u002f\u002Fapi.wandb.ai\u002ffiles\u002Fe/p/r/f.txt"}"#, true),
            (r#"{"url":"HTTPS://API.wandb.ai/files/e/p/r/f.txt"}"#, true),
            (r#"{"url":"https://api.wandb.ai:443/files/e/p/r/f.txt"}"#, true),
            (r#"{"url":"https://api.wandb.ai/Files/e/p/r/f.txt"}"#, false),
            (r#"{"url":"https://api.wandb.ai.evil.example/files/x"}"#, false),
            (r#"{"url":"https://api.wandb.ai:4430/files/x"}"#, false),
            (r#"{"url":"https://storage.example/files/x?u=https://api.wandb.ai/files/"}"#, false),
            (r#"{"x":"see https://api.wandb.ai/files/e"}"#, false),
        ] {
            for size in 1..=spelled.len() {
                let out = String::from_utf8(rewritten(&[base], spelled.as_bytes(), size)).expect("text");
                assert_eq!(
                    out.starts_with(r#"{"url":"http://127.0.0.1:4/files/e"#),
                    wanted,
                    "{spelled}: {out}"
                );
                assert!(wanted || out == spelled, "{size}: {out}");
            }
        }
    }

    #[test]
    fn all_addresses_in_a_body_are_found_and_nothing_is_lost() {
        let address = |host: &str, file: u32| format!(r#""{host}/files/e/p/r/{file}""#);
        let list = |host: &str| (0..50).map(|file| address(host, file)).collect::<Vec<_>>().join(",");
        let base = "http://127.0.0.1:9/api";
        for size in [1, 7, 64, 100_000] {
            assert_eq!(rewritten(&[base], list(base).as_bytes(), size), list(OURS).into_bytes());
        }
        for end in ["\"", "\"htt", "\"http:\\", "\"http:\\u00"] {
            assert_eq!(rewritten(&[base], end.as_bytes(), 2), end.as_bytes(), "held back to the end");
        }
    }

    #[test]
    fn a_request_that_asks_for_an_address_is_known() {
        for yes in [r#"{"query":"{ files { url } }"}"#, "url", "directUrl\\n", "{uploadUrl(x:1)}"] {
            assert!(asks_for_addresses(yes.as_bytes()), "{yes}");
        }
        for no in ["", "ur", "curl ", "urls", r#"{"query":"{ viewer { id } }"}"#] {
            assert!(!asks_for_addresses(no.as_bytes()), "{no}");
        }
    }
}
