//! The headers of a request on its way, and of its answer on the way back. Nothing is added but what the profile's
//! `headers-file` holds for its server.

use hyper::HeaderMap;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, LOCATION,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::target::Target;
use crate::token::AccessToken;

/// What goes to the server: all that came, but for this connection's own, the host, and the key. What `gateway` has is the
/// profile's word, whatever the client says.
pub(super) fn outward(mut headers: HeaderMap, target: &Target, gateway: &HeaderMap) -> HeaderMap {
    drop_hop_by_hop(&mut headers);
    headers.remove(EXPECT);
    for name in gateway.keys() {
        headers.remove(name);
    }
    for (name, value) in gateway {
        headers.append(name, value.clone());
    }
    headers.remove(AUTHORIZATION);
    headers.insert(HOST, target.host.clone());
    headers
}

/// Proves who asks.
pub(super) fn authorize(headers: &mut HeaderMap, token: &AccessToken) {
    let value = zeroize::Zeroizing::new(format!("Bearer {}", token.secret().expose()));
    if let Ok(mut value) = HeaderValue::from_str(&value) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
}

/// What goes back.
pub(super) fn inward(headers: &mut HeaderMap, target: &Target, ours: &str) {
    drop_hop_by_hop(headers);
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    if let Some(value) = location.and_then(|location| target.back(location, ours))
        && let Ok(value) = value.parse()
    {
        headers.insert(LOCATION, value);
    }
}

/// RFC 9110, section 7.6.1. The framing is hyper's; a length that is known stays.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Whoever names these wants to do harm.
        .filter(|name| ![HOST, CONTENT_LENGTH, AUTHORIZATION].contains(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_header_names_goes_no_further_and_all_else_does() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "content-length"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-wandb-username", "a"),
            ("x-wandb-username", "b"),
            ("content-md5", "x"),
            ("content-encoding", "gzip"),
            ("use-admin-privileges", "true"),
            ("content-length", "3"),
        ] {
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        drop_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "content-encoding",
                "content-length",
                "content-md5",
                "use-admin-privileges",
                "x-wandb-username",
                "x-wandb-username"
            ]
        );
    }
}
