//! What the loopback proxy reads: the head of a request, and the body of an answer that it may change.

use bytes::Bytes;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, UPGRADE};
use hyper::{Method, Uri};
use wandb_cred::proxy::head::{self, KEY_LENGTH};
use wandb_cred::proxy::rewrite::{Rewrite, asks_for_addresses};

/// A head as it comes over the wire. What is let through must be what it seems.
pub fn head(input: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(input).is_err() {
        return;
    }
    let (Some(method), Some(target)) = (request.method, request.path) else { return };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else { return };
    let mut map = HeaderMap::new();
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) {
            map.append(name, value);
        }
    }
    if head::route(&method, &uri, &map, 4711).is_ok() {
        assert_eq!(map.get_all(HOST).iter().collect::<Vec<_>>(), ["127.0.0.1:4711"]);
        assert!(!map.contains_key(ORIGIN) && !map.contains_key(UPGRADE));
        assert!(uri.authority().is_none() && uri.path().starts_with('/'));
        let path = uri.path().to_ascii_lowercase();
        let path = path.replace("%6f", "o").replace("%69", "i").replace("%64", "d").replace("%63", "c");
        let path = path.replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
        assert!(!path.trim_start_matches(['/', '.']).starts_with("oidc/"), "{uri}");
        assert!(!path.split('/').any(|segment| segment == ".."), "{uri}");
    }
    if let Ok(key) = head::key(&map) {
        assert!(key.len() == KEY_LENGTH && key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}

/// A body, cut into pieces whose size its first byte says. However it is cut, the same comes out.
pub fn rewrite(input: &[u8]) {
    const BASE: &str = "https://api.wandb.ai";
    let Some((first, body)) = input.split_first() else { return };
    let rewritten = |size: usize| {
        let mut rewrite = Rewrite::new(&[BASE], "http://127.0.0.1:4711");
        let mut out = Vec::new();
        for piece in body.chunks(size) {
            out.extend_from_slice(&rewrite.piece(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&rewrite.end());
        out
    };
    let whole = rewritten(usize::MAX);
    assert!(rewritten(usize::from(*first).max(1)) == whole, "the pieces make a difference");
    let needle = format!("\"{BASE}/files/");
    assert!(!whole.windows(needle.len()).any(|window| window == needle.as_bytes()));
    if !body.contains(&b'"') {
        assert!(whole == body);
    }
    let _ = asks_for_addresses(body);
}
