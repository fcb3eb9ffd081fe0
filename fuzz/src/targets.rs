//! What each target reads, and what must hold for any input.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use openidconnect::{IssuerUrl, Nonce};
use serde_json::Value;
use wandb_cred::backoff::parse_retry_after;
use wandb_cred::client::parse_head;
use wandb_cred::clock::{Clock, Now};
use wandb_cred::config::Config;
use wandb_cred::exchange::Exchange;
use wandb_cred::feed::lines::{self, Line};
use wandb_cred::http::{Answer, Http};
use wandb_cred::login::loopback;
use wandb_cred::oidc::keys::KeySet;
use wandb_cred::oidc::metadata::Document;
use wandb_cred::oidc::{Flow, Granted, Preset, RelyingParty, Settings, discover, read_device};
use wandb_cred::provider::cloud::aws::sts;
use wandb_cred::provider::local::command;
use wandb_cred::provider::{answer, program};
use wandb_cred::token::{Expires as _, IdentityToken};

/// The text of a JWT. An input that begins with `{` is the claims of one.
pub fn jwt(input: &[u8]) {
    match IdentityToken::parse_insecure(&compact(input), now()) {
        Ok(token) => {
            assert!(!token.expiry().remaining(now()).is_zero(), "an expired token was taken");
            let _ = (token.claims().subject(), token.not_yet(now()));
            if let Err(error) = token.check_audience("work", Some("acme")) {
                sentence(&error.message);
            }
        }
        Err(malformed) => sentence(&malformed.to_string()),
    }
}

/// What W&B answers to the exchange, as a success and as a refusal; and what a provider's token endpoint answers.
pub fn token_answer(input: &[u8]) {
    let base_url = "https://api.wandb.ai".parse().expect("a URL");
    let exchange = Exchange::new(&base_url, Http::new(Clock::system()));
    match exchange.success(&answer(200, input)) {
        Ok(token) => {
            let text = token.secret().expose();
            assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
            let left = token.expiry().remaining(now());
            assert!(left <= LONGEST_LIFE, "a life of {left:?} is believed");
        }
        Err(error) => sentence(&error.message),
    }
    sentence(&exchange.refusal(&answer(400, input)).message);
    let granted = Granted::read(input);
    if let Err(fault) = granted.id_token() {
        sentence(&fault.to_string());
    }
    let _ = granted.refresh_expires_in();
    if let Err(fault) = read_device(input) {
        sentence(&fault.to_string());
    }
}

/// A line of a feed.
pub fn feed_line(input: &[u8]) {
    match lines::parse(input, now()) {
        Ok(Line::Token(relayed)) => {
            let text = relayed.token.secret().expose();
            assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
            let left = relayed.token.expiry().remaining(now());
            assert!(!left.is_zero() && left <= LONGEST_LIFE, "a life of {left:?} is believed");
        }
        Ok(Line::Goodbye) => {}
        Err(why) => sentence(why),
    }
}

/// A provider's description of itself, its keys, and W&B's answer to `/oidc/cli_config`.
pub fn discovery(input: &[u8]) {
    match Document::parse(input) {
        Ok(document) => {
            let _ = document.auth_methods();
            let faults = document.issuer().err().into_iter();
            for fault in faults.chain(ENDPOINTS.iter().filter_map(|field| document.required_url(field).err()))
            {
                sentence(&fault.to_string());
            }
        }
        Err(fault) => sentence(&fault.to_string()),
    }
    if let Err(fault) = KeySet::parse(input) {
        sentence(&fault.to_string());
    }
    if let Err(fault) = discover::read(input) {
        sentence(&fault.to_string());
    }
}

/// An ID token whose signature is right. An input that begins with `{` is its claims.
pub fn id_token(input: &[u8]) {
    let Ok(token) = IdentityToken::parse_insecure(&compact(input), now()) else { return };
    let issuer = IssuerUrl::new("https://id.example".to_owned()).expect("a URL");
    let clock = Clock::system();
    let settings = Settings {
        profile: "work".to_owned(),
        issuer,
        client_id: "acme".to_owned(),
        client_secret: None,
        scopes: Vec::new(),
        preset: Preset::Generic,
        audience: None,
        flow: Flow::Code,
        redirect_host: "127.0.0.1",
        redirect_port: 0,
        authorize_params: BTreeMap::new(),
    };
    let party = RelyingParty::new(settings, Http::new(clock.clone()), clock);
    for nonce in [None, Some(&Nonce::new("n".to_owned()))] {
        if let Err(why) = party.check_claims(token.claims(), nonce) {
            sentence(&why);
        }
    }
}

/// What a program prints on both its outputs, and what token services answer.
pub fn provider_output(input: &[u8]) {
    for field in [None, Some("data.token")] {
        if let Err(why) = command::answer::token(input, field) {
            sentence(&why);
        }
    }
    sentence(&program::said(input));
    if let Err(error) = answer::json::<Value>("service", &answer(200, input)) {
        sentence(&error.message);
    }
    let said = String::from_utf8_lossy(input);
    for status in [302, 401, 404, 503] {
        let answer = answer(status, input);
        sentence(&answer::refusal("service", &answer, Some(&said)).message);
        sentence(&sts::refusal(&answer).error.message);
    }
}

pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Config::parse(&text) {
        Ok(config) => {
            config.broken.values().for_each(|mistake| one_line(&mistake.to_string()));
            let _ = config.default_profile();
            let _ = config.strict();
        }
        Err(mistake) => one_line(&mistake.to_string()),
    }
}

/// The daemon's answer as the command reads it, `Retry-After`, and the query with which a browser returns.
pub fn http_head(input: &[u8]) {
    if let Ok(Some(head)) = parse_head(input) {
        assert!(head.start <= input.len() && head.length <= 1024 * 1024, "{head:?}");
        assert_eq!(parse_head(&input[..head.start]), Ok(Some(head)), "what follows the head changes it");
    }
    let _ = loopback::parse(input);
    let _ = std::str::from_utf8(input).ok().and_then(|text| parse_retry_after(text, now()));
}

pub fn redact(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for most in [40, 300] {
        let shown = wandb_cred::redact::redact(&text, most);
        assert!(shown.chars().count() <= most + 1, "too long: {shown:?}");
        one_line(&shown);
        no_token(&shown);
    }
}

/// A message with foreign words in it: one line, of a length that fits a terminal, without a token.
fn sentence(text: &str) {
    one_line(text);
    no_token(text);
    assert!(text.chars().count() <= 1000, "a message of {} characters", text.chars().count());
}

fn one_line(text: &str) {
    let bad = |c: char| c.is_control() || BIDIRECTIONAL.contains(&c);
    assert!(!text.contains(bad), "it can forge a line: {text:?}");
}

/// No W&B token, and no part of a JWT.
fn no_token(text: &str) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    for (begin, least) in [("wb_at_", 8), ("eyJ", 20)] {
        for (at, _) in text.match_indices(begin) {
            let rest = text[at + begin.len()..].chars().take_while(|c| word(*c)).count();
            assert!(rest < least, "a token shows: {text:?}");
        }
    }
}

/// The input itself, or a JWT with it as its claims.
fn compact(input: &[u8]) -> String {
    if !input.starts_with(b"{") {
        return String::from_utf8_lossy(input).into_owned();
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"k"}"#);
    format!("{header}.{}.c2ln", URL_SAFE_NO_PAD.encode(input))
}

fn answer(status: u16, body: &[u8]) -> Answer {
    Answer {
        status,
        headers: Default::default(),
        body: body.to_vec().into(),
        sent: now(),
        retry_after: None,
        skew: None,
    }
}

/// Always the same, so that an input that failed fails again.
fn now() -> Now {
    let wall = Timestamp::from_second(1_800_000_000).expect("in range");
    Now { wall, boot: Duration::from_secs(1000), skew: 0 }
}

/// What a discovery document is asked for.
const ENDPOINTS: [&str; 3] = ["token_endpoint", "jwks_uri", "revocation_endpoint"];

/// What is believed of an `expires_in`.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// They change the order in which the rest of a line is shown.
const BIDIRECTIONAL: [char; 12] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];
