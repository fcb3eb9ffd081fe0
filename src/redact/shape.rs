//! How a credential looks, how its name does, and how words do that are neither.

/// Whether `word` (no white space, no delimiters) may be a credential: long, and not made of what people read.
pub(super) fn looks_secret(word: &str) -> bool {
    if KNOWN.iter().any(|known| word.contains(known)) {
        return true;
    }
    let mixed = word.bytes().any(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    word.len() >= SHORTEST && mixed && !word.starts_with(['/', '~', '.']) && !is_readable(word)
}

/// Whether `name` is what people call a credential. `invalid_token` is an error code.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let about = NO_VALUE.iter().any(|end| name.ends_with(end))
        || COMPLAINTS.iter().any(|start| name.starts_with(start));
    (has(&SURE_NAMES) || has(&NAMES)) && !about
}

/// Whether a sentence never begins after `name` and its colon.
pub(super) fn is_sure_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SURE_NAMES.iter().any(|sure| name.contains(sure))
}

/// Whether `word` says that what follows is wrong.
pub(super) fn is_complaint(word: &str) -> bool {
    COMPLAINTS.contains(&word.to_ascii_lowercase().as_str())
}

/// Whether `word` is one of a sentence.
pub(super) fn is_prose(word: &str) -> bool {
    let word = word.trim_matches(|c: char| c.is_ascii_punctuation());
    let mut bytes = word.bytes();
    word.len() <= 15
        && bytes.next().is_none_or(|first| first.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_lowercase())
}

/// Made of words, numbers and GUIDs: an error code, a host name, an e-mail address, a resource's name.
fn is_readable(word: &str) -> bool {
    let mut rest = word;
    loop {
        // A GUID has the separators of words in it.
        if let Some(after) = strip_guid(rest) {
            rest = after;
        }
        let (atom, after) = match rest.find(SEPARATORS) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        if !is_readable_atom(atom) {
            return false;
        }
        match after {
            Some(after) => rest = after,
            None => return true,
        }
    }
}

fn strip_guid(text: &str) -> Option<&str> {
    let guid = text.get(..36)?;
    let fits = |(at, b): (usize, u8)| match at {
        8 | 13 | 18 | 23 => b == b'-',
        _ => b.is_ascii_hexdigit(),
    };
    let after = &text[36..];
    let ends = after.is_empty() || after.starts_with(SEPARATORS);
    (ends && guid.bytes().enumerate().all(fits)).then_some(after)
}

/// Names of this length have separators, or no digits among letters of both cases.
const LONG_ATOM: usize = 32;

/// A number, a word, or a word and a number after it (`AADSTS700016`).
fn is_readable_atom(atom: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| atom.as_bytes().iter().any(&kind);
    if atom.len() >= LONG_ATOM
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
    {
        return false;
    }
    let letters = atom.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = atom.len() - letters.len();
    let word = letters.chars().all(char::is_alphabetic) && is_readable_word(letters);
    let one_case =
        !atom.contains(|c: char| c.is_ascii_uppercase()) || !atom.contains(|c: char| c.is_ascii_lowercase());
    (word && digits <= MOST_DIGITS) || (atom.len() <= 3 && one_case)
}

/// Like `audience`, `AUDIENCE` or `InvalidIdentityToken`, and unlike `kJHgfDsaQw`: few humps, each of some length.
fn is_readable_word(letters: &str) -> bool {
    let bytes = letters.as_bytes();
    let upper = bytes.iter().filter(|b| b.is_ascii_uppercase()).count();
    if upper == 0 {
        return true;
    }
    if upper == letters.len() {
        return letters.len() < SHORTEST;
    }
    let humps = 1 + bytes
        .windows(2)
        .filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
        .count();
    let vowels = bytes.iter().filter(|b| b"aeiouyAEIOUY".contains(b)).count();
    let length = letters.len();
    if length < 12 {
        humps * 4 <= length + 3 && upper * 2 <= length + 2 && vowels > 0
    } else {
        // The longer, the more chances random letters have to look like words.
        let capitals = if length < 36 { upper * 4 <= length + 4 } else { upper * 6 <= length + 6 };
        humps * 4 <= length && capitals && vowels * 4 >= length
    }
}

/// The beginning of each JSON object in base64url, and of W&B's access tokens.
const KNOWN: [&str; 2] = ["eyJ", "wb_at_"];

/// Shorter credentials are found by their names only.
const SHORTEST: usize = 20;

/// An AWS account has 12 digits, a Google Cloud project's and an Azure error's numbers have no more, and an OAuth client of
/// Google's has up to 21.
const MOST_DIGITS: usize = 21;

const SEPARATORS: [char; 9] = ['-', '_', '.', '/', '@', '+', '|', '%', '~'];

/// In lower case. Whatever follows these is taken for the value.
const SURE_NAMES: [&str; 6] = ["password", "passwd", "secret", "authorization", "apikey", "api_key"];
const NAMES: [&str; 2] = ["token", "assertion"];

/// What is said *about* a credential.
const NO_VALUE: [&str; 11] = [
    "type",
    "exchange",
    "endpoint",
    "_url",
    "_uri",
    "expires_in",
    "audience",
    "issuer",
    "method",
    "exception",
    "error",
];

const COMPLAINTS: [&str; 10] = [
    "invalid",
    "expired",
    "missing",
    "malformed",
    "unsupported",
    "unknown",
    "bad",
    "wrong",
    "incorrect",
    "unauthorized",
];
