//! What a helper printed: a bare JWT, or JSON that holds one or says why there is none.

use serde_json::Value;
use zeroize::Zeroizing;

use crate::json;
use crate::redact::redact;
use crate::token::text;

/// The token's text, or why there is none, to follow "the output of PROGRAM".
pub fn token(printed: &[u8], field: Option<&str>) -> Result<Zeroizing<String>, String> {
    let text = text::of_bytes(printed).ok_or("is not text")?;
    let trimmed = text.trim().trim_start_matches('\u{feff}');
    if !trimmed.starts_with(['{', '[']) && field.is_none() {
        return Ok(text);
    }
    let mut json: Value = serde_json::from_str(trimmed).map_err(|_| match field {
        Some(_) => "is not valid JSON, so it has no `field`".to_owned(),
        None => "is not valid JSON".to_owned(),
    })?;
    let found = match field {
        _ if failed(&json) => Err(format!("says that it failed{}", said(&json))),
        Some(field) => named(&json, field),
        None => usual(&json).map(str::to_owned).ok_or_else(|| {
            format!("is JSON without a token in any usual field; set `field` to where it is{}", said(&json))
        }),
    };
    json::wipe(&mut json);
    found.map(Zeroizing::new)
}

/// The token where the configuration says it is: a field's name, or several as "outer.inner".
fn named(json: &Value, field: &str) -> Result<String, String> {
    let pointer = format!("/{}", field.replace('.', "/"));
    match json.get(field).or_else(|| json.pointer(&pointer)) {
        Some(Value::String(token)) => Ok(token.clone()),
        Some(other) => Err(format!("has {} in `{field}` where a token is needed", json::kind(other))),
        None => Err(format!("is JSON without a string at `{field}`{}", said(json))),
    }
}

/// AIP-4117: a helper for executable-sourced credentials fails in its answer.
fn failed(json: &Value) -> bool {
    match json.get("success") {
        Some(Value::Bool(success)) => !success,
        Some(Value::String(success)) => success.eq_ignore_ascii_case("false"),
        _ => false,
    }
}

/// What the answer says about a failure: AIP-4117's `code` and `message`, OAuth's two fields, Vault's list.
fn said(json: &Value) -> String {
    let text = |value: &Value| {
        json::text(value).filter(|text| !text.trim().is_empty()).map(|text| text.into_owned())
    };
    let at = |pointer: &str| json.pointer(pointer).and_then(text);
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| at(pointer));
    let code = first(&["/code", "/error/code", "/error", "/Code"]);
    let words =
        first(&["/message", "/error_description", "/error/message", "/errors/0", "/Message", "/detail"]);
    let said: Vec<String> = code.into_iter().chain(words).collect();
    match redact(&said.join(": "), 300) {
        empty if empty.is_empty() => empty,
        said => format!(": {said}"),
    }
}

/// The token under a usual name, a JWT before an opaque one; else the only JWT there is.
fn usual(json: &Value) -> Option<&str> {
    let mut found = Vec::new();
    walk(json, "", DEPTH, &mut found);
    let is_jwt = |token: &str| text::bare(token).is_ok_and(|bare| text::is_jwt(&bare));
    let mut known: Vec<(usize, &str)> =
        found.iter().filter_map(|(name, token)| Some((rank(name)?, *token))).collect();
    known.sort_by_key(|(rank, _)| *rank);
    let best = known.iter().find(|(_, token)| is_jwt(token)).map(|(_, token)| *token);
    let only = || {
        let mut jwts = found.iter().filter(|(name, token)| !name.contains("refresh") && is_jwt(token));
        jwts.next().filter(|_| jwts.next().is_none()).map(|(_, token)| *token)
    };
    best.or_else(only).or_else(|| known.first().map(|(_, token)| *token))
}

/// Every text in it with its name in lower case and without `_` and `-`, the outer ones first.
fn walk<'j>(json: &'j Value, name: &str, depth: usize, found: &mut Vec<(String, &'j str)>) {
    match json {
        Value::String(text) if !text.is_empty() => found.push((name.to_owned(), text)),
        Value::Array(values) if depth > 0 => {
            values.iter().for_each(|value| walk(value, name, depth - 1, found));
        }
        Value::Object(fields) if depth > 0 => {
            let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-'], "");
            let (nested, texts): (Vec<_>, Vec<_>) =
                fields.iter().partition(|(_, value)| value.is_object() || value.is_array());
            for (name, value) in texts.into_iter().chain(nested) {
                walk(value, &plain(name), depth - 1, found);
            }
        }
        _ => {}
    }
}

fn rank(name: &str) -> Option<usize> {
    USUAL_NAMES.iter().position(|usual| *usual == name)
}

/// AIP-4117 and OAuth (`id_token`), gcloud, the AWS CLI (`WebIdentityToken`), kubectl and Vault (`token`, under `status` or
/// `data`), az (`accessToken`), GitHub (`value`), and credential helpers.
const USUAL_NAMES: [&str; 10] = [
    "idtoken",
    "identitytoken",
    "webidentitytoken",
    "oidctoken",
    "jwt",
    "token",
    "accesstoken",
    "value",
    "credential",
    "clienttoken",
];

const DEPTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2ln";

    fn at(text: &str, field: Option<&str>) -> Result<String, String> {
        token(text.replace("JWT", JWT).as_bytes(), field).map(|token| token.to_string())
    }

    #[test]
    fn the_manual_names_the_usual_names_in_their_order() {
        let page = include_str!("../../../../man/wandb-cred-config.5");
        let list = page.lines().find(|line| line.starts_with(".BR id_token ")).expect("a list");
        let names: Vec<_> = list[4..].split([' ', '"', ',', '.']).filter(|word| !word.is_empty()).collect();
        let names: Vec<_> = names.iter().map(|name| name.replace('_', "")).collect();
        assert_eq!(names, USUAL_NAMES);
    }

    #[test]
    fn tokens_are_found_bare_and_in_json() {
        assert_eq!(at("a.b.c", None).as_deref(), Ok("a.b.c"));
        assert_eq!(at(r#"{"status":{"token":"t"}}"#, None).as_deref(), Ok("t"));
        assert_eq!(at(r#"{"x":{"y":"t"}}"#, Some("x.y")).as_deref(), Ok("t"));
        assert_eq!(at(r#"{"https://x.example/y":"t"}"#, Some("https://x.example/y")).as_deref(), Ok("t"));
        assert!(at(r#"{"x":1}"#, None).is_err());
        assert!(at("{", None).is_err());
    }

    #[test]
    fn the_usual_names_of_usual_programs_are_known() {
        for text in [
            r#"{"accessToken":"JWT","expiresOn":"2026-01-01","tokenType":"Bearer"}"#,
            r#"{"access_token":"JWT"}"#,
            r#"{"id_token":"JWT"}"#,
            r#"{"idToken":"JWT"}"#,
            r#"{"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:id_token","id_token":"JWT"}"#,
            r#"{"request_id":"x","data":{"client_id":"y","token":"JWT","ttl":3600}}"#,
            r#"{"WebIdentityToken":"JWT","Expiration":"2026-01-01"}"#,
            r#"{"status":{"token":"JWT"}}"#,
            r#"{"credential":{"id_token":"JWT"}}"#,
            r#"[{"token":"JWT"}]"#,
            "\u{feff}{\"value\":\"JWT\"}",
        ] {
            assert_eq!(at(text, None).as_deref(), Ok(JWT), "{text}");
        }
    }

    #[test]
    fn an_opaque_token_hides_no_jwt() {
        for text in [
            r#"{"token":"opaque","access_token":"JWT"}"#,
            r#"{"id_token":"opaque","data":{"token":"JWT"}}"#,
            r#"{"access_token":"ya29.opaque","id_token":"JWT","refresh_token":"1//x"}"#,
            r#"{"token":"opaque","assertion":"JWT"}"#,
            r#"{"token":"opaque","assertion":"JWT","refreshToken":"JWT"}"#,
        ] {
            assert_eq!(at(text, None).as_deref(), Ok(JWT), "{text}");
        }
        assert_eq!(at(r#"{"token":"opaque","a":"JWT","b":"JWT"}"#, None).as_deref(), Ok("opaque"));
    }

    #[test]
    fn a_failure_in_the_answer_is_passed_on() {
        for (text, said) in [
            (
                r#"{"version":1,"success":false,"code":"401","message":"no session"}"#,
                "says that it failed: 401: no session",
            ),
            (r#"{"success":"false","code":7,"id_token":"JWT"}"#, "says that it failed: 7"),
            (r#"{"error":"invalid_grant","error_description":"expired"}"#, ": invalid_grant: expired"),
            (r#"{"errors":["permission denied"]}"#, ": permission denied"),
            (r#"{"error":{"code":403,"message":"no"}}"#, ": 403: no"),
        ] {
            let why = at(text, None).expect_err("no token");
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn a_field_of_another_type_is_named() {
        assert_eq!(
            at(r#"{"x":{"y":1}}"#, Some("x")),
            Err("has an object in `x` where a token is needed".to_owned())
        );
        assert_eq!(at("JWT", Some("x")), Err("is not valid JSON, so it has no `field`".to_owned()));
    }
}
