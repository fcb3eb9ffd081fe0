//! Where a request goes: a server, and the path there, byte for byte as it came.

use hyper::Uri;
use hyper::header::HeaderValue;
use url::Url;

use super::head::Route;
use crate::http::Http;
use crate::profile::Profile;

/// A server's address, and one path on it.
pub(super) struct Target {
    /// The server.
    pub(super) url: Url,
    /// The profile's way there.
    pub(super) http: Http,
    pub(super) origin: String,
    pub(super) host: HeaderValue,
    /// In origin form.
    pub(super) uri: Uri,
    /// The address without the path that was asked for, no slash at the end.
    base: String,
    /// What the path begins with on our side and not on theirs.
    prefix: &'static str,
}

impl Target {
    /// `None` if the path cannot be sent: it is then longer than any server takes.
    pub(super) fn of(route: Route, profile: &Profile, uri: &Uri) -> Option<Self> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let traces = matches!(route, Route::Traces | Route::TraceServerInfo);
        let (base, prefix) = match (traces, &profile.trace_url, profile.base_url.traces()) {
            (false, _, _) | (true, None, None) => (profile.base_url.as_str(), ""),
            (true, Some(own), _) => (own.as_str(), TRACES),
            (true, None, Some(cloud)) => (cloud, TRACES),
        };
        Self::at(profile.http.clone(), base, prefix, path)
    }

    fn at(http: Http, base: &str, prefix: &'static str, path: &str) -> Option<Self> {
        let url: Url = base.parse().ok()?;
        let rest = path.strip_prefix(prefix)?;
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let uri = format!("{}{slash}{rest}", url.path().trim_end_matches('/')).parse().ok()?;
        let host = url.host_str()?;
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let origin = format!("{}://{host}", url.scheme());
        let base = base.trim_end_matches('/').to_owned();
        Some(Self { host: host.parse().ok()?, http, origin, uri, base, prefix, url })
    }

    /// A redirect to the same server, as an address of ours.
    pub(super) fn back(&self, location: &str, ours: &str) -> Option<String> {
        let path = self.url.path().trim_end_matches('/');
        let rest = location.strip_prefix(&self.base).or_else(|| {
            // A path alone counts from the server's root, and ours is below it.
            let below = !path.is_empty() || !self.prefix.is_empty();
            location
                .strip_prefix(path)
                .filter(|rest| below && rest.starts_with('/') && !rest.starts_with("//"))
        })?;
        (rest.is_empty() || rest.starts_with(['/', '?'])).then(|| format!("{ours}{}{rest}", self.prefix))
    }
}

/// What weave's requests begin with on our side.
pub(super) const TRACES: &str = "/traces";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn at(base: &str, prefix: &'static str, path: &str) -> Option<Target> {
        Target::at(Http::new(Clock::system()), base, prefix, path)
    }

    #[test]
    fn the_path_is_sent_as_it_came() {
        for path in ["/files/e/p/a%2Fb/%7E?x=%20&y=a+b", "/", "//x", "/a/./b", "/?q"] {
            let target = at("https://h", "", path).expect("a target");
            assert_eq!(target.uri.to_string(), path);
        }
        let below = at("https://h:8/api", "", "/graphql").expect("a target");
        assert_eq!((below.uri.to_string().as_str(), below.host.as_bytes()), ("/api/graphql", &b"h:8"[..]));
        let traces = at("https://trace.example", TRACES, "/traces/call/start?x").expect("a target");
        assert_eq!(traces.uri.to_string(), "/call/start?x");
        assert_eq!(at("https://trace.example", TRACES, "/traces").expect("one").uri.to_string(), "/");
    }

    #[test]
    fn a_redirect_to_the_same_server_comes_back_to_us() {
        let back = |base: &str, prefix, location: &str| {
            at(base, prefix, &format!("{prefix}/x")).expect("a target").back(location, "http://o")
        };
        assert_eq!(back("https://h", "", "https://h/y?z").as_deref(), Some("http://o/y?z"));
        assert_eq!(back("https://h", "", "https://h.evil/y"), None);
        assert_eq!(back("https://h", "", "https://storage/y"), None);
        assert_eq!(back("https://h", "", "/y"), None, "good as it is");
        assert_eq!(back("https://h/api", "", "/api/y").as_deref(), Some("http://o/y"));
        assert_eq!(back("https://t", TRACES, "/y").as_deref(), Some("http://o/traces/y"));
        assert_eq!(back("https://t", TRACES, "https://t/y").as_deref(), Some("http://o/traces/y"));
    }
}
