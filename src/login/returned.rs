//! The address at which a browser on another machine ended, as a person pastes it.
//!
//! Over ssh, the browser is where nothing of ours listens: it shows a page that cannot be reached, and the provider's answer is in
//! its address bar. Pasted, it becomes the callback that it would have been, and the sign-in judges it as any other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::oneshot;
use url::Url;
use zeroize::Zeroizing;

use super::listener::{Callback, Seat, Verdict};
use super::loopback::{Loopback, PATH, parse};

/// How such an address gets to its sign-in.
#[derive(Clone, Default)]
pub(super) struct Door(Arc<OnceLock<Weak<Seat>>>);

impl Door {
    pub(super) fn open(&self, loopback: &Loopback) {
        // A sign-in has one loopback server.
        let _ = self.0.set(loopback.seat());
    }

    /// Returns when the sign-in has taken it, however that ended.
    pub(super) async fn take(&self, address: &str) -> Result<(), &'static str> {
        let seat = self.0.get().ok_or("this sign-in is by a code, and takes no address")?;
        let seat = seat.upgrade().filter(|seat| !seat.closed.load(Ordering::Relaxed)).ok_or(OVER)?;
        if seat.form_post {
            return Err("this identity provider sends its answer in a form, which is not in the address");
        }
        let params = params_of(address, &seat.authority)?;
        let callbacks = seat.callbacks.clone();
        drop(seat);
        let (answer, verdict) = oneshot::channel();
        callbacks.send(Callback { params, answer }).await.map_err(|_| OVER)?;
        drop(callbacks);
        match verdict.await {
            Ok(Verdict::Refused(why)) => Err(why),
            Ok(Verdict::SignedIn(_) | Verdict::Failed(_)) => Ok(()),
            Err(_) => Err(OVER),
        }
    }
}

/// What the address says to the loopback server at `authority`.
fn params_of(address: &str, authority: &str) -> Result<Zeroizing<Vec<(String, String)>>, &'static str> {
    let address = address.trim();
    // Some browsers show, and so give, an address without its scheme.
    let whole = Zeroizing::new(match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    });
    let url = Url::parse(&whole).map_err(|_| "it is not an address")?;
    let found = url.host_str().map(|host| format!("{host}:{}", url.port_or_known_default().unwrap_or(0)));
    let ours = url.scheme() == "http"
        && url.username().is_empty()
        && url.password().is_none()
        && found.as_deref() == Some(authority)
        && url.path() == PATH;
    if !ours {
        return Err("it is not the address at which this sign-in ends; that has /callback? in it");
    }
    let params = parse(url.query().unwrap_or_default().as_bytes());
    params.ok_or("it cannot be read, or has a parameter twice")
}

const OVER: &str = "an answer has come already, or the time is over";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_this_sign_in_is_taken() {
        let taken = |address: &str| params_of(address, "127.0.0.1:4000").map(|params| params.len());
        assert_eq!(taken(" http://127.0.0.1:4000/callback?code=a&state=b\n"), Ok(2));
        assert_eq!(taken("127.0.0.1:4000/callback?code=a&state=b"), Ok(2));
        for address in [
            "https://127.0.0.1:4000/callback?code=a",
            "http://127.0.0.1:4001/callback?code=a",
            "http://localhost:4000/callback?code=a",
            "http://x@127.0.0.1:4000/callback?code=a",
            "http://127.0.0.1:4000/callback/?code=a",
            "https://idp.example/authorize?state=b",
            "http://127.0.0.1:4000/callback?code=a&code=b",
            "code",
            "",
        ] {
            assert!(taken(address).is_err(), "{address}");
        }
    }
}
