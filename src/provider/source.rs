//! What an identity source is, and what it is built with.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::env::Env;
use crate::error::{Error, Malformed, Reason};
use crate::http::Http;
use crate::oidc::session::Session;
use crate::token::IdentityToken;

/// A source of identity tokens.
///
/// An implementer tries **once** per call. It never retries (the keeper does, with backoff), never caches
/// (the keeper does that too), never logs a token, and never changes or deletes what it reads.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The kind, as the configuration spells it.
    fn name(&self) -> &'static str;

    /// One attempt at a fresh identity token. May be cancelled at any await.
    async fn fetch(&self) -> Result<IdentityToken, Error>;

    /// A token that an earlier daemon had from this source, with what the source would say of it. Asks nobody.
    async fn restored(&self, token: IdentityToken) -> IdentityToken {
        token
    }

    /// The session in which a person signs in, if that is how it gets its tokens.
    fn session(&self) -> Option<Arc<Session>> {
        None
    }
}

/// What every provider may need.
#[derive(Clone)]
pub struct Context {
    pub profile: String,
    /// The audience the organization expects, from the profile.
    pub audience: Option<String>,
    /// The W&B server of the profile, for sources that hold accounts of several servers.
    pub base_url: Option<url::Url>,
    pub env: Env,
    pub clock: Clock,
    pub http: Http,
}

impl Context {
    /// Reads a JWT that came from `source`, which the error names.
    pub fn parse(&self, raw: &str, source: impl fmt::Display) -> Result<IdentityToken, Error> {
        IdentityToken::parse_insecure(raw, self.clock.now()).map_err(|how| {
            let message = format!("{source}: {how}");
            match how {
                // Not replaced yet: the next attempt may find a good one.
                Malformed::Expired { at } => Error::transient(message).because(Reason::TokenExpired { at }),
                // Half-written.
                Malformed::Empty => Error::transient(message).because(Reason::MalformedToken { how }),
                how => Error::rejected(message).because(Reason::MalformedToken { how }),
            }
        })
    }

    /// Whether the JWT that came from `source` is for the profile's audience, if it names one. `fix` says how the
    /// user makes the two agree.
    pub fn check_audience(&self, token: &IdentityToken, source: &str, fix: &str) -> Result<(), Error> {
        let checked = token.check_audience(&self.profile, self.audience.as_deref());
        checked.map_err(|error| error.context(source).hint(fix))
    }

    /// Reads a JWT that came from `source` and checks its audience.
    pub fn identity(&self, raw: &str, source: &str, fix: &str) -> Result<IdentityToken, Error> {
        let token = self.parse(raw, source)?;
        self.check_audience(&token, source, fix)?;
        Ok(token)
    }

    /// The audience, or an error that says which key is missing.
    pub fn require_audience(&self, kind: &str) -> Result<&str, Error> {
        self.audience.as_deref().ok_or_else(|| {
            let profile = &self.profile;
            let message = format!(
                "provider {kind} needs to know the audience: set `audience` in [profile.{profile}] to the name of your W&B organization"
            );
            Error::setting("audience", message)
        })
    }
}

/// The `fix` for a service that was asked for the audience and has no setting of its own.
pub(crate) const AUDIENCE_IGNORED: &str =
    "the service ignored the audience that it was asked for; please report this";

#[cfg(test)]
pub(crate) mod test {
    //! What the tests of every provider need.

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::Context;
    use crate::clock::Clock;
    use crate::env::Env;
    use crate::http::Http;

    /// A context for the audience "acme" with exactly these variables.
    pub(crate) fn context(vars: &[(&str, &str)]) -> Context {
        let clock = Clock::system();
        Context {
            profile: "work".into(),
            audience: Some("acme".into()),
            base_url: None,
            env: Env::fixed(vars.iter().copied()),
            http: Http::new(clock.clone()),
            clock,
        }
    }

    /// A JWT for "acme" that lives for `life` more seconds, with `claims` (JSON members) besides.
    pub(crate) fn jwt(life: i64, claims: &str) -> String {
        let exp = Clock::system().now().wall.as_second() + life;
        let claims = if claims.is_empty() { r#""aud":"acme","sub":"someone""# } else { claims };
        let payload = format!(r#"{{"exp":{exp},{claims}}}"#);
        let header = r#"{"alg":"RS256","typ":"JWT"}"#;
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }
}

#[cfg(test)]
mod tests {
    use super::test::{context, jwt};
    use crate::error::Reason;

    #[test]
    fn a_jwt_for_another_audience_is_named_as_such() {
        let cx = context(&[]);
        let error =
            cx.identity(&jwt(60, r#""aud":["sts","x"]"#), "source", "do this").expect_err("for others");
        let found = vec!["sts".to_owned(), "x".to_owned()];
        assert_eq!(error.reason, Reason::AudienceMismatch { found, wanted: "acme".to_owned() });
        for part in ["source: ", "`sts`, `x`", "`acme`", "; do this"] {
            assert!(error.message.contains(part), "{error}");
        }
        cx.identity(&jwt(60, r#""aud":["x","acme"]"#), "source", "").expect("one of several is enough");
    }
}
