//! What must hold for every input, tried on many. `PROPTEST_CASES=1000000 cargo test --release --test properties`
//! is the long run.

use std::time::Duration;

use proptest::prelude::*;
use wandb_cred::backoff::{Backoff, RETRY_AFTER_MOST, parse_retry_after};
use wandb_cred::clock::{Clock, Now};
use wandb_cred::config::Config;
use wandb_cred::keeper::Policy;
use wandb_cred::redact::redact;
use wandb_cred::token::{Expiry, IdentityToken, Renewal, TokenHash};

fn now() -> Now {
    Clock::system().now()
}

/// Text with the marks that matter to a parser in it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~\\n]{0,200}",
        "[a-z.\\[\\]\"'={},# \\n-]{0,200}",
        "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,20}",
    ]
}

/// Something that looks like a credential.
fn credential() -> impl Strategy<Value = String> {
    prop_oneof![
        "eyJ[A-Za-z0-9_-]{10,60}\\.eyJ[A-Za-z0-9_-]{10,60}\\.[A-Za-z0-9_-]{20,60}",
        "wb_at_[A-Za-z0-9]{8,40}",
        "[A-Z0-9][A-Za-z0-9]{30,50}[0-9]",
    ]
}

proptest! {
    #[test]
    fn no_credential_survives_redaction(before in "[ -~]{0,60}", secret in credential(), after in "[ -~]{0,60}") {
        // Between spaces, as a word of its own: inside a word the whole word is judged.
        let shown = redact(&format!("{before} {secret} {after}"), 1000);
        prop_assert!(!shown.contains(&secret), "{shown}");
    }

    #[test]
    fn redaction_is_one_bounded_line(text in text(), most in 0_usize..300) {
        let shown = redact(&text, most);
        prop_assert!(shown.chars().count() <= most + 1);
        prop_assert!(!shown.chars().any(char::is_control));
    }

    #[test]
    fn no_text_makes_the_jwt_reader_panic_and_what_it_takes_lives(text in text()) {
        let now = now();
        if let Ok(token) = IdentityToken::parse_insecure(&text, now) {
            prop_assert!(!wandb_cred::token::Expires::expiry(&token).remaining(now).is_zero());
        }
    }

    #[test]
    fn no_text_makes_the_configuration_reader_panic(text in text()) {
        if let Err(mistake) = Config::parse(&text) {
            prop_assert!(!mistake.to_string().contains('\n'));
        }
    }

    #[test]
    fn configuration_mistakes_name_a_line_that_exists(key in "[a-z-]{1,20}", value in "[a-z0-9\"]{1,10}") {
        let text = format!("[profile.a]\n{key} = {value}\n[profile.a.provider.file]\npath = \"/x\"\n");
        if let Ok(config) = Config::parse(&text) {
            for mistake in config.broken.values() {
                let said = mistake.to_string();
                let line: usize = said.split(':').nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
                prop_assert!((1..=5).contains(&line), "{said}");
            }
        }
    }

    #[test]
    fn token_hashes_read_only_what_they_print(text in text()) {
        if let Some(hash) = TokenHash::parse(&text) {
            prop_assert_eq!(hash.to_string(), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn renewal_comes_within_life_and_never_at_once(life in 1_u64..10_000_000) {
        let life = Duration::from_secs(life);
        for policy in [Policy::Fraction, Policy::SdkMargin] {
            let wait = policy.renew_in(life, &Renewal::default());
            prop_assert!(wait < life && wait >= Duration::from_secs(5).min(life / 2), "{policy:?}: {wait:?}");
        }
    }

    #[test]
    fn expiry_never_says_more_than_was_given(life in any::<u64>(), passed in any::<u32>()) {
        let now = now();
        let expiry = Expiry::after(now, Duration::from_secs(life));
        let passed = Duration::from_secs(passed.into());
        let later = Now { wall: now.wall + passed, boot: now.boot + passed, ..now };
        prop_assert!(expiry.remaining(later) <= Duration::from_secs(life).saturating_sub(passed));
    }

    #[test]
    fn delays_are_bounded_whatever_the_server_says(failures in any::<u32>(), said in text()) {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
        let delay = backoff.delay(failures, parse_retry_after(&said, now()));
        prop_assert!(delay >= backoff.first / 2 && delay <= RETRY_AFTER_MOST.mul_f64(1.1));
    }
}
