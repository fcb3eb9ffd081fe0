//! Text that somebody else wrote (an identity provider, W&B, a program), made fit to be shown where it enters.
//!
//! A terminal obeys escape sequences, a log ends a record at a newline, and bidirectional controls show one thing and mean
//! another. So whatever is shown of foreign text is [`clean`]: one line of limited length. Text that may quote a
//! credential goes through [`redact`](crate::redact::redact), which cleans too.

use std::borrow::Cow;

use url::Url;

/// At most `most` characters of `text`, on one line, without anything that a terminal or a log would obey.
pub fn clean(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut length = 0;
    for word in words(cut(text, most)) {
        let space = usize::from(!out.is_empty());
        if space == 1 {
            out.push(' ');
        }
        for c in word.chars() {
            if length + space >= most {
                out.truncate(out.trim_end().len());
                out.push('…');
                return out;
            }
            out.push(c);
            length += 1;
        }
        length += space;
    }
    out
}

/// A name, such as an account's, an issuer's or an audience: clean, and as long as real ones are.
pub fn name(text: &str) -> String {
    clean(text, MAX_NAME)
}

/// A whole message, whatever is in it: the last guard, for text that was not clean where it entered. White space stays as it
/// is; only what a terminal or a log would obey goes.
pub fn message(text: String) -> String {
    let harmless = |c: char| !(c.is_control() || is_invisible(c) || matches!(c, '\u{2028}' | '\u{2029}'));
    if text.len() <= MAX_MESSAGE && text.chars().all(harmless) {
        return text;
    }
    let kept = text.chars().filter(|c| !is_invisible(*c)).map(|c| if harmless(c) { c } else { ' ' });
    let mut message: String = kept.take(MAX_MESSAGE).collect();
    if text.len() > MAX_MESSAGE {
        message.push('…');
    }
    message
}

/// Whether what was written in the place of an address looks like one, and may be repeated: a key or a token that was put there
/// by mistake may not, and neither may a password in front of an @.
pub fn is_address(text: &str) -> bool {
    let named = text.contains(['.', ':']) || text.starts_with("localhost");
    named && text.len() <= MAX_ADDRESS && !text.contains('@') && !text.starts_with("eyJ")
}

/// Whether `url` is that of a web page, which a person may be shown and a browser be told to open.
pub fn is_page(url: &Url) -> bool {
    matches!(url.scheme(), "https" | "http") && url.as_str().len() <= MAX_PAGE
}

/// The words of `text` between white space and control characters, without invisible characters.
pub(crate) fn words(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let visible = words.map(|word| {
        if word.contains(is_invisible) {
            Cow::Owned(word.replace(is_invisible, ""))
        } else {
            Cow::Borrowed(word)
        }
    });
    visible.filter(|word| !word.is_empty())
}

/// The beginning of `text`: enough for `most` characters that are shown, and a bound on the work that they cost.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let end = text.len().min(most.saturating_mul(BYTES_READ_PER_SHOWN));
    &text[..text.floor_char_boundary(end)]
}

/// Format characters (Unicode's category Cf and its like): they show nothing, and change what is shown around them.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Longest e-mail address (RFC 5321, section 4.5.3.1), and more than any issuer or audience has.
const MAX_NAME: usize = 320;

/// Longer than any message of ours with the paths and lists in it.
const MAX_MESSAGE: usize = 16 * 1024;

/// A token is longer.
const MAX_ADDRESS: usize = 100;

/// What browsers take at least (RFC 9110, section 4.1, recommends 8,000).
const MAX_PAGE: usize = 8000;

/// White space, what is invisible, and what is redacted is read and not shown.
const BYTES_READ_PER_SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_or_a_log_obeys_comes_through() {
        for (text, shown) in [
            ("ABCD-EFGH", "ABCD-EFGH"),
            ("a\u{1b}[2Jb", "a [2Jb"),
            ("a\u{9b}2Jb", "a 2Jb"),
            ("one\r\n2026-01-01 INFO forged", "one 2026-01-01 INFO forged"),
            ("one\u{2028}two\u{2029}three\u{85}four", "one two three four"),
            ("\u{202e}evil\u{202c}\u{2066}x\u{2069}\u{200e}\u{200f}\u{61c}", "evilx"),
            ("zero\u{200b}width\u{feff}\u{e0041}", "zerowidth"),
            ("  spaces\t and\0 nul ", "spaces and nul"),
            ("Jürgen 山田", "Jürgen 山田"),
        ] {
            assert_eq!(clean(text, 100), shown, "{text:?}");
        }
    }

    #[test]
    fn a_message_keeps_its_spaces_and_loses_what_is_obeyed() {
        assert_eq!(message("a  path/with  spaces".to_owned()), "a  path/with  spaces");
        assert_eq!(message("a\nb\u{1b}c\u{2028}d\u{202e}e".to_owned()), "a b c de");
        assert!(message("x".repeat(40_000)).len() < 17_000);
    }

    #[test]
    fn a_browser_is_told_to_open_web_pages_only() {
        let is = |url: &str| is_page(&Url::parse(url).expect("a URL"));
        assert!(is("https://idp.example/device") && is("http://127.0.0.1:1/device"));
        for bad in ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x", "vscode://x"] {
            assert!(!is(bad), "{bad}");
        }
        assert!(!is(&format!("https://idp.example/{}", "x".repeat(40_000))));
    }

    #[test]
    fn the_length_is_counted_in_characters() {
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcdef…");
        assert_eq!(clean("ab cd ef", 6), "ab cd…");
        assert_eq!(clean(&"ü".repeat(40_000), 8).chars().count(), 9);
        assert_eq!(name(&"x".repeat(40_000)).chars().count(), MAX_NAME + 1);
    }
}
