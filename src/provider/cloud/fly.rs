//! `fly`: the OIDC token of a Fly.io machine, from the API that Fly's init serves on a Unix socket in it.
//!
//! `iss` is `https://oidc.fly.io/ORGANIZATION`, `sub` is `ORGANIZATION:APP:MACHINE`: it changes with the machine, so W&B matches
//! only machines that stay.
//!
//! ```toml
//! [profile.work]
//! audience = "acme"
//! [profile.work.provider.fly]
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, Kind};
use crate::http::{Destination, Http};
use crate::provider::answer;
use crate::provider::detect::Detect;
use crate::provider::settings::require_absolute;
use crate::provider::source::{AUDIENCE_IGNORED, Context, Provider};
use crate::token::IdentityToken;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The API's socket; `/.fly/api` by default.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// For one request; 10 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Fly, Error> {
        let socket = self.socket.unwrap_or_else(|| SOCKET.into());
        require_absolute(KIND, "socket", &socket)?;
        let body = json!({ "aud": cx.require_audience(KIND)? }).to_string();
        let http = cx.http.with_socket(&socket)?;
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        Ok(Fly { socket, http, body, timeout, cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        match env.var(MACHINE) {
            None => Err(format!("{MACHINE} is not set")),
            Some(_) if !Path::new(SOCKET).exists() => {
                Err(format!("{MACHINE} is set, but there is no {SOCKET}"))
            }
            Some(_) => Ok(format!("{MACHINE} is set, and {SOCKET} is there: a Fly.io machine")),
        }
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct Fly {
    socket: PathBuf,
    http: Http,
    body: String,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for Fly {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let url = Url::parse("http://localhost/v1/tokens/oidc").expect("a constant URL");
        let request = self
            .http
            .request(Destination::Platform, Method::POST, url)
            .header(CONTENT_TYPE, "application/json")
            .body(self.body.clone());
        let answer = self.http.send(Destination::Platform, request, self.timeout, MAX_ANSWER).await;
        let answer = answer.map_err(|error| match error.kind {
            Kind::Transient => {
                let at = self.socket.display();
                error.context(format_args!("{SERVICE} at {at}")).hint("is this a Fly.io machine?")
            }
            _ => error,
        })?;
        if answer.status != 200 {
            let said = answer::json::<Refused>(SERVICE, &answer).ok().map(|refused| refused.error);
            return Err(answer::refusal(SERVICE, &answer, said.as_deref()));
        }
        self.cx.identity(&answer.text(), SERVICE, AUDIENCE_IGNORED)
    }
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

const KIND: &str = "fly";
const SERVICE: &str = "Fly.io's machine API";
const SOCKET: &str = "/.fly/api";
const MACHINE: &str = "FLY_MACHINE_ID";
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::provider::source::test::{context, jwt};

    /// Answers one request, and gives it back: its first line, its headers and its body.
    fn serve(socket: &Path, status: &str, body: &str) -> std::thread::JoinHandle<(String, String)> {
        let listener = UnixListener::bind(socket).expect("bound");
        let answer =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut reader = BufReader::new(&stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(reader.read_line(&mut head).expect("a line"), 0, "{head}");
            }
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.expect("a length").parse().expect("a number")];
            reader.read_exact(&mut body).expect("a body");
            (&stream).write_all(answer.as_bytes()).expect("sent");
            (head, String::from_utf8(body).expect("text"))
        })
    }

    fn provider(socket: &Path) -> Fly {
        let config = Config { socket: Some(socket.to_owned()), timeout: None };
        config.build(context(&[])).expect("built")
    }

    #[tokio::test]
    async fn the_socket_is_asked_for_the_audience() {
        let dir = tempfile::tempdir().expect("temp dir");
        let socket = dir.path().join("api");
        let server = serve(&socket, "200 OK", &jwt(600, r#""aud":"acme","sub":"acme:train:48e""#));
        let token = provider(&socket).fetch().await.expect("a token");
        assert_eq!(token.claims().sub.as_deref(), Some("acme:train:48e"));
        let (head, body) = server.join().expect("it served");
        assert!(head.starts_with("post /v1/tokens/oidc http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
        assert_eq!(body, r#"{"aud":"acme"}"#);
    }

    #[tokio::test]
    async fn a_refusal_and_a_missing_socket_are_told_apart() {
        let dir = tempfile::tempdir().expect("temp dir");
        let socket = dir.path().join("api");
        let error = provider(&socket).fetch().await.expect_err("nobody there");
        assert!(error.is_transient() && error.message.contains(socket.to_str().expect("text")), "{error}");
        let server = serve(&socket, "403 Forbidden", r#"{"error":"not this machine"}"#);
        let error = provider(&socket).fetch().await.expect_err("refused");
        assert!(error.kind == Kind::Rejected && error.message.contains("not this machine"), "{error}");
        server.join().expect("it served");
    }
}
