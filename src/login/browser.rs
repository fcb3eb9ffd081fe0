//! Signing in with a browser on this machine: open the authorization URL, wait for the browser to come back
//! to the loopback address, check what it brings, redeem it (RFC 8252, RFC 7636, RFC 9207).

use std::time::Duration;

use openidconnect::RedirectUrl;

use super::loopback::{Callback, Loopback, Verdict};
use super::{Attempt, out_of_time, page};
use crate::error::Error;
use crate::oidc::{self, Authorization, Flow, Tokens};

impl Attempt {
    pub(super) async fn browser(&self) -> Result<String, Error> {
        let settings = &self.session.party.settings;
        let form_post = settings.flow == Flow::Implicit;
        let mut loopback = Loopback::bind(settings.redirect_host, settings.redirect_port, form_post).await?;
        let redirect = RedirectUrl::new(loopback.redirect_uri()).expect("host and port make a URL");
        let authorization = self.session.party.authorize(redirect).await?;
        self.waiting(self.login(authorization.url.to_string(), CAP));
        let wait = self.answered(&mut loopback, authorization);
        let result = tokio::time::timeout(CAP, wait).await.unwrap_or_else(|_| Err(out_of_time(CAP)));
        // A second browser, or a reload, still gets a page that says what happened.
        tokio::spawn(loopback.linger(LINGER));
        result
    }

    /// Takes callbacks until one belongs to this sign-in; the others are refused and change nothing, so that
    /// a page which guesses the port cannot end somebody's sign-in.
    async fn answered(&self, loopback: &mut Loopback, authorization: Authorization) -> Result<String, Error> {
        loop {
            let Some(callback) = loopback.callback().await else {
                return Err(oidc::transient("the loopback server has ended"));
            };
            if let Err(why) = belongs(&callback, &authorization) {
                tracing::warn!(profile = self.session.profile(), "a callback was refused: {why}");
                callback.answer(Verdict::Refused(why));
                continue;
            }
            loopback.close();
            let result = match self.tokens(&callback, authorization).await {
                Ok(tokens) => self.finish(tokens).await,
                Err(error) => Err(error),
            };
            callback.answer(match &result {
                Ok(account) => Verdict::SignedIn(page::signed_in(account, self.session.profile())),
                Err(error) => Verdict::Failed(page::failed(&error.to_string(), self.session.profile())),
            });
            return result;
        }
    }

    async fn tokens(&self, callback: &Callback, authorization: Authorization) -> Result<Tokens, Error> {
        let party = &self.session.party;
        if let Some(code) = callback.param("error") {
            return Err(party.answered(code, callback.param("error_description")));
        }
        match authorization.verifier {
            Some(verifier) => {
                let Some(code) = callback.param("code") else {
                    return Err(oidc::untrusted("the browser came back without a code".to_owned()));
                };
                let code = code.to_owned();
                party.redeem(code, verifier, &authorization.nonce, &authorization.redirect).await
            }
            None => {
                let Some(token) = callback.param("id_token") else {
                    return Err(oidc::untrusted("the browser came back without an ID token".to_owned()));
                };
                party.accept(token, &authorization.nonce).await
            }
        }
    }
}

/// Whether an answer is to this request, and from the issuer that was asked.
fn belongs(callback: &Callback, authorization: &Authorization) -> Result<(), &'static str> {
    let Some(state) = callback.param("state") else {
        return Err("it carries no state, so it belongs to no sign-in of ours");
    };
    if !same(state, authorization.state.secret()) {
        return Err("its state is not that of the sign-in under way");
    }
    match callback.param("iss") {
        Some(issuer) if issuer != authorization.issuer => {
            Err("it comes from another identity provider than the one that was asked")
        }
        None if authorization.issuer_required => Err("it does not name the identity provider it comes from"),
        _ => Ok(()),
    }
}

/// Compares without telling by the time taken how much is right.
fn same(given: &str, wanted: &str) -> bool {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(given) == Sha256::digest(wanted)
}

/// A person at a browser is done in three minutes, or has gone.
const CAP: Duration = Duration::from_secs(3 * 60);

/// How long the loopback server outlives the sign-in.
const LINGER: Duration = Duration::from_secs(20);
