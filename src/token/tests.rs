use super::*;

fn now() -> Now {
    let wall = Timestamp::from_second(1_800_000_000).expect("in range");
    Now { wall, boot: Duration::from_secs(500), skew: 0 }
}

fn jwt(payload: &str) -> String {
    use base64::Engine as _;
    let b64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    format!("{}.{}.c2ln", b64.encode(r#"{"alg":"RS256"}"#), b64.encode(payload))
}

#[test]
fn debug_shows_no_secret() {
    let token = IdentityToken::parse_insecure(&jwt(r#"{"exp":1800000100,"sub":"me"}"#), now());
    let token = token.expect("valid");
    assert!(!format!("{token:?}").contains("c2ln"));
    let access = AccessToken::new("wb_at_planted".into(), token.expiry());
    assert!(!format!("{access:?}").contains("planted"));
}

#[test]
fn audience_is_one_or_many_or_absent() {
    for (json, want) in [
        (r#"{"exp":1800000100,"aud":"a"}"#, vec!["a"]),
        (r#"{"exp":1800000100,"aud":["a","b"]}"#, vec!["a", "b"]),
        (r#"{"exp":1800000100}"#, vec![]),
    ] {
        let token = IdentityToken::parse_insecure(&jwt(json), now()).expect("valid");
        assert_eq!(token.claims().aud, want);
    }
}

#[test]
fn each_malformed_text_has_its_own_error() {
    let parse = |raw: &str| IdentityToken::parse_insecure(raw, now()).expect_err("malformed");
    assert_eq!(parse(" \n"), Malformed::Empty);
    assert_eq!(parse("opaque"), Malformed::NotThreeParts { count: 1 });
    assert_eq!(parse("a.b.c"), Malformed::NotBase64 { part: Part::Header });
    assert_eq!(parse("eyJhbGciOiJSUzI1NiJ9.W10.c2ln"), Malformed::NotAnObject { part: Part::Claims });
    assert_eq!(parse(&format!("{}!", jwt("{}"))), Malformed::NotBase64 { part: Part::Signature });
    assert_eq!(parse("eyJhbGciOiJub25lIn0.e30.c2ln"), Malformed::Unsigned);
    assert_eq!(parse("eyJhbGciOiJSUzI1NiJ9.e30."), Malformed::Unsigned);
    assert_eq!(parse(&jwt("{}")), Malformed::NoExpiry);
    assert_eq!(parse(&jwt(r#"{"exp":1e300}"#)), Malformed::NoExpiry);
    assert!(matches!(parse(&jwt(r#"{"exp":1}"#)), Malformed::Expired { .. }));
    assert!(matches!(parse(&"x".repeat(MAX_JWT + 1)), Malformed::TooLong { .. }));
}

#[test]
fn claims_that_nobody_needs_may_be_anything() {
    for json in [
        r#"{"exp":1800000100,"email":["a@b.example","c@d.example"]}"#,
        r#"{"exp":1800000100,"email_verified":"yes","amr":"pwd","iat":"yesterday","jti":{},"nbf":[]}"#,
        r#"{"exp":"1800000100"}"#,
        r#"{"exp":1800000100,"sub":{"id":1},"email":"me@acme.example"}"#,
        r#"{"exp":1800000100,"iat":-1e308,"nbf":-1e308}"#,
    ] {
        let token = IdentityToken::parse_insecure(&jwt(json), now()).expect(json);
        assert_eq!(token.expiry().remaining(now()).as_secs(), 100, "{json}");
        assert_eq!(token.not_yet(now()), None, "{json}");
    }
}

#[test]
fn a_claim_that_is_needed_is_refused_by_name() {
    for (json, said) in [
        (r#"{"exp":"soon"}"#, "the JWT has text in `exp` where a number of seconds is needed"),
        (r#"{"exp":[1800000100]}"#, "the JWT has a list in `exp` where a number of seconds is needed"),
        (
            r#"{"exp":1800000100,"aud":{}}"#,
            "the JWT has an object in `aud` where text or a list of texts is needed",
        ),
        (r#"{"exp":1800000100,"iss":true}"#, "the JWT has true or false in `iss` where text is needed"),
    ] {
        let error = IdentityToken::parse_insecure(&jwt(json), now()).expect_err(json);
        assert_eq!(error.to_string(), said);
    }
}

#[test]
fn a_jwt_that_is_not_valid_yet_says_for_how_long() {
    let wait = |skew, nbf: &str| {
        let now = Now { skew, ..now() };
        let json = format!(r#"{{"exp":1800000100,"nbf":{nbf}}}"#);
        let token = IdentityToken::parse_insecure(&jwt(&json), now).expect("good");
        token.not_yet(now).map(|(wait, _)| wait.as_secs())
    };
    assert_eq!(wait(0, "1800000003"), Some(3));
    assert_eq!(wait(0, "1800000000"), None);
    assert_eq!(wait(0, "1799999999.5"), None);
    assert_eq!(wait(2, "1800000003"), Some(1), "we are behind");
    assert_eq!(wait(-600, "1799999990"), Some(590), "we are ahead");
    assert_eq!(wait(0, "1e300"), None, "no time at all");
}

#[test]
fn the_issuers_clock_decides_when_a_jwt_ends() {
    let life = |skew| {
        let now = Now { skew, ..now() };
        let token = IdentityToken::parse_insecure(&jwt(r#"{"exp":1800000100}"#), now);
        token.map(|token| token.expiry().remaining(now).as_secs())
    };
    assert_eq!(life(0), Ok(100));
    assert_eq!(life(-600), Ok(700), "we are ten minutes ahead");
    assert!(matches!(life(100), Err(Malformed::Expired { .. })), "we are behind");
}

#[test]
fn no_clock_lengthens_the_life_that_a_jwt_says() {
    for (skew, exp, iat, left) in [
        (0, 1_800_000_100_i64, 1_799_999_800_i64, 100),
        // We are ten minutes ahead: it ended long ago by our clock, and never lived longer than 300 s.
        (-600, 1_800_000_100, 1_799_999_800, 300),
        // Our clock is three hours slow, and no server's word counts.
        (0, 1_800_010_800 + 3600, 1_800_010_800, 3600),
        (0, 1_800_000_100, 1_800_000_100, 100),
        (0, 1_800_000_100, 1_900_000_000, 100),
    ] {
        let now = Now { skew, ..now() };
        let token = IdentityToken::parse_insecure(&jwt(&format!(r#"{{"exp":{exp},"iat":{iat}}}"#)), now);
        assert_eq!(token.expect("valid").expiry().remaining(now).as_secs(), left, "{skew} {exp} {iat}");
    }
}

#[test]
fn the_stricter_clock_decides() {
    let expiry = Expiry::after(now(), Duration::from_secs(100));
    let mut later = now();
    assert_eq!(expiry.remaining(later), Duration::from_secs(100));
    later.boot += Duration::from_secs(60);
    assert_eq!(expiry.remaining(later), Duration::from_secs(40), "wall clock stood still");
    later.wall += Duration::from_secs(99);
    assert_eq!(expiry.remaining(later), Duration::from_secs(1));
    later.wall += Duration::from_millis(1);
    assert_eq!(expiry.remaining(later), Duration::ZERO, "under a second is expired");
}

#[test]
fn token_hashes_parse_what_they_print() {
    let hash = TokenHash::of("x");
    assert_eq!(TokenHash::parse(&hash.to_string()), Some(hash));
    assert_eq!(TokenHash::parse("zz"), None);
    assert_eq!(TokenHash::parse(&"é".repeat(32)), None);
}
