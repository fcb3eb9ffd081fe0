//! Signs in with a browser on this machine: makes the authorization URL, waits for the browser to return to the loopback
//! address, checks what it brings and redeems it (RFC 8252, RFC 7636, RFC 9207).

use std::time::Duration;

use openidconnect::RedirectUrl;

use super::listener::{Callback, Verdict};
use super::loopback::{Loopback, equal};
use super::{Attempt, page, timed_out};
use crate::backoff::Thinned;
use crate::error::{Error, Reason};
use crate::oidc::{self, Authorization, Flow, Tokens};

impl Attempt {
    pub(super) async fn browser(&self) -> Result<String, Error> {
        let settings = &self.session.party.settings;
        let form_post = settings.flow == Flow::Implicit;
        let (host, port) = (settings.redirect_host, settings.redirect_port);
        let loopback = Loopback::open(&self.listeners, host, port, form_post).await;
        let mut loopback = loopback.map_err(|error| self.no_listener(port, &error))?;
        let redirect = RedirectUrl::new(loopback.redirect_uri()).expect("host and port make a URL");
        let authorization = self.session.party.authorize(redirect).await?;
        loopback.expect(authorization.state.secret());
        self.door.open(&loopback);
        self.waiting(self.login(authorization.url.to_string(), SIGN_IN_TIMEOUT));
        let answer = self.await_answer(&mut loopback, authorization);
        let result = tokio::time::timeout(SIGN_IN_TIMEOUT, answer).await;
        let result = result.unwrap_or_else(|_| Err(timed_out(SIGN_IN_TIMEOUT)));
        // So that a reload or a second browser still gets a page that says what happened.
        tokio::spawn(loopback.close_after(CLOSE_DELAY));
        result
    }

    /// Takes callbacks until one belongs to this sign-in. The others are refused and change nothing, so that a web page
    /// that guesses the port cannot end the sign-in.
    async fn await_answer(
        &self,
        loopback: &mut Loopback,
        authorization: Authorization,
    ) -> Result<String, Error> {
        let refused = Thinned::new();
        loop {
            let Some(callback) = loopback.callback().await else {
                return Err(oidc::transient("the loopback server stopped"));
            };
            if let Err(why) = check_callback(&callback, &authorization) {
                if let Some(count) = refused.count() {
                    tracing::warn!(profile = self.session.profile(), count, "refused a callback: {why}");
                }
                callback.answer(Verdict::Refused(why));
                continue;
            }
            loopback.refuse_further();
            self.answered();
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

    fn no_listener(&self, port: u16, error: &std::io::Error) -> Error {
        if port == 0 {
            return oidc::transient(format!(
                "cannot listen on 127.0.0.1 for the browser to return to: {error}"
            ));
        }
        let message = format!(
            "cannot listen on 127.0.0.1:{port} for the browser to return to: {error}; end the program that listens there, \
             or register another port with the provider and set `redirect-port` in [profile.{}.provider.oidc], or sign in \
             with --device, which needs no port",
            self.session.profile()
        );
        oidc::transient(message).because(Reason::PortUnavailable { port })
    }

    async fn tokens(&self, callback: &Callback, authorization: Authorization) -> Result<Tokens, Error> {
        let party = &self.session.party;
        if let Some(code) = callback.param("error") {
            return Err(party.answered(code, callback.param("error_description")));
        }
        match authorization.verifier {
            Some(verifier) => {
                let Some(code) = callback.param("code") else {
                    return Err(oidc::untrusted("the browser returned without a code".to_owned()));
                };
                let code = code.to_owned();
                party.redeem(code, verifier, &authorization.nonce, &authorization.redirect).await
            }
            None => {
                let Some(token) = callback.param("id_token") else {
                    return Err(oidc::untrusted("the browser returned without an ID token".to_owned()));
                };
                party.accept(token, &authorization.nonce).await
            }
        }
    }
}

/// Checks that an answer belongs to this request and comes from the issuer that was asked.
fn check_callback(callback: &Callback, authorization: &Authorization) -> Result<(), &'static str> {
    let Some(state) = callback.param("state") else {
        return Err("it carries no state, so it belongs to no sign-in");
    };
    if !equal(state, authorization.state.secret()) {
        return Err("its state is not that of the sign-in in progress");
    }
    match callback.param("iss") {
        Some(issuer) if issuer != authorization.issuer => {
            Err("it comes from a different identity provider than the one that was asked")
        }
        None if authorization.issuer_required => Err("it does not name the identity provider it comes from"),
        _ => Ok(()),
    }
}

/// After three minutes the person has signed in or has left.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(3 * 60);

/// How long the loopback server stays open after the sign-in.
const CLOSE_DELAY: Duration = Duration::from_secs(20);
