//! The few pages that a person sees when the browser returns: plain words, no script, nothing loaded from other places,
//! and nothing that the request sent. Only the person's own name is inserted.

use base64::Engine as _;
use hyper::StatusCode;
use sha2::{Digest as _, Sha256};

/// One rendered page.
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) html: String,
}

pub(super) fn signed_in(account: &str, profile: &str) -> Page {
    let account = escape(account);
    let profile = escape(profile);
    page(
        StatusCode::OK,
        "good",
        "You are signed in",
        &format!(
            "<p>Signed in as <b>{account}</b> for the profile <b>{profile}</b>.</p><p>You can close this window and return to the terminal.</p>"
        ),
    )
}

pub(super) fn failed(why: &str, profile: &str) -> Page {
    let (why, profile) = (escape(why), escape(profile));
    page(
        StatusCode::BAD_GATEWAY,
        "bad",
        "The sign-in did not work",
        &format!(
            "<p>{why}.</p><p>Nothing was changed. To try again, run in the terminal:</p><pre>wandb-cred login --profile {profile}</pre>"
        ),
    )
}

/// For a request that does not answer the sign-in in progress.
pub(super) fn refused(status: StatusCode, why: &str) -> Page {
    let why = escape(why);
    page(
        status,
        "bad",
        "This request was refused",
        &format!(
            "<p>This address only accepts the answer to a sign-in that you started, and this request is not one: {why}.</p><p>If you did not just sign in, close this window. A sign-in in progress is not affected.</p>"
        ),
    )
}

/// For a browser that comes after the one answer that counts.
pub(super) fn late() -> Page {
    page(
        StatusCode::GONE,
        "bad",
        "This sign-in is over",
        "<p>It has already been answered, from this window or another one, so this answer was not used.</p><p>If that was not you, sign out with <code>wandb-cred logout</code>, and sign in again.</p>",
    )
}

fn page(status: StatusCode, class: &str, title: &str, body: &str) -> Page {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{title} - wandb-cred</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main class=\"{class}\">\n<h1>{title}</h1>\n{body}\n<footer>wandb-cred, on this computer</footer>\n</main>\n</body>\n</html>\n"
    );
    Page { status, html }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Allows the page's one style sheet, by its hash, and nothing else.
pub(super) fn policy() -> String {
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

pub(super) const HEADERS: [(&str, &str); 8] = [
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    // The address of this page contains a code.
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("connection", "close"),
];

const STYLE: &str = "
:root { color-scheme: light dark; font: 17px/1.5 system-ui, sans-serif; }
body { margin: 0; display: grid; place-items: center; min-height: 100vh; background: #f4f4f2; color: #1d1d1b; }
main { max-width: 34rem; margin: 2rem; padding: 1.5rem 2rem; background: #fff; border-top: 6px solid #1a7f4b; }
main.bad { border-color: #b3261e; }
h1 { font-size: 1.4rem; margin: .2rem 0 .8rem; }
pre, code { font: .9rem ui-monospace, monospace; background: #ecece9; padding: .15rem .35rem; }
pre { padding: .6rem .8rem; overflow-x: auto; }
footer { margin-top: 1.6rem; font-size: .8rem; color: #666; }
@media (prefers-color-scheme: dark) {
  body { background: #161615; color: #eee; }
  main { background: #222220; }
  pre, code { background: #33332f; }
  footer { color: #aaa; }
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_no_page_loads_anything() {
        let page = signed_in("<script>alert('x')</script>", "a&b");
        assert!(!page.html.contains("<script") && page.html.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        for foreign in ["http:", "https:", "src=", "href=", "url(", "@import"] {
            assert!(!page.html.contains(foreign), "{foreign}");
        }
    }
}
