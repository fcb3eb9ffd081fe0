//! A small HTTP server that answers what a test tells it to, and an identity provider made of one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::elliptic_curve::rand_core::OsRng;
use p256::pkcs8::EncodePrivateKey as _;
use serde_json::{Value, json};

pub(crate) const CERTIFICATE: &str = include_str!("../data/doctor/stand-in.cert.pem");

/// What one path answers.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

pub(crate) fn answer(status: u16, body: impl ToString) -> Answer {
    Answer { status, headers: vec![("Content-Type", "application/json".into())], body: body.to_string() }
}

impl Answer {
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }
}

/// Answers by path, whatever the method and the query; 404 for paths it was not told.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) url: String,
    routes: Arc<Mutex<BTreeMap<String, Answer>>>,
    /// Seconds that its `Date` is ahead of ours.
    skew: Arc<Mutex<Option<i64>>>,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let stand_in = Self { url, routes: Arc::default(), skew: Arc::default() };
        let serving = stand_in.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&mut { stream }));
            }
        });
        stand_in
    }

    /// By TLS, for `https://localhost`, with the certificate in tests/data/doctor: self-signed, good for a century, and
    /// trusted by nobody who is not told to.
    pub(crate) fn start_tls() -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate")],
                PrivateKeyDer::from_pem_slice(include_bytes!("../data/doctor/stand-in.key.pem"))
                    .expect("a key"),
            )
            .expect("they fit");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
        let stand_in = Self { url, routes: Arc::default(), skew: Arc::default() };
        let serving = stand_in.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (serving, config) = (serving.clone(), Arc::clone(&config));
                std::thread::spawn(move || {
                    let tls = rustls::ServerConnection::new(config).expect("a good configuration");
                    let mut stream = rustls::StreamOwned::new(tls, stream);
                    serving.serve(&mut stream);
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        stand_in
    }

    pub(crate) fn on(&self, path: &str, answer: Answer) {
        self.routes.lock().expect("not poisoned").insert(path.to_owned(), answer);
    }

    /// What this path answers now.
    pub(crate) fn answer_at(&self, path: &str) -> Answer {
        self.routes.lock().expect("not poisoned")[path].clone()
    }

    pub(crate) fn skew(&self, seconds: i64) {
        *self.skew.lock().expect("not poisoned") = Some(seconds);
    }

    fn serve(&self, stream: &mut (impl std::io::Read + std::io::Write)) {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut piece) {
                Ok(read) if read > 0 => bytes.extend_from_slice(&piece[..read]),
                _ => return,
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        while bytes.len() < head + length.unwrap_or(0) {
            match stream.read(&mut piece) {
                Ok(read) if read > 0 => bytes.extend_from_slice(&piece[..read]),
                _ => return,
            }
        }
        let line = String::from_utf8_lossy(&bytes);
        let path =
            line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        let found = self.routes.lock().expect("not poisoned").get(&path).cloned();
        let found = found.unwrap_or_else(|| answer(404, "{}"));
        let mut text = format!(
            "HTTP/1.1 {} x\r\nContent-Length: {}\r\nConnection: close\r\n",
            found.status,
            found.body.len()
        );
        if let Some(skew) = *self.skew.lock().expect("not poisoned") {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs((now() + skew) as u64);
            text += &format!("Date: {}\r\n", httpdate::fmt_http_date(at));
        }
        for (name, value) in &found.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let _ = stream.write_all(format!("{text}\r\n{}", found.body).as_bytes());
    }
}

/// An identity provider with one key.
pub(crate) struct Issuer {
    pub(crate) http: StandIn,
    key: EncodingKey,
    jwk: Jwk,
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let secret = p256::SecretKey::random(&mut OsRng).to_pkcs8_der().expect("a key");
        let key = EncodingKey::from_ec_der(secret.as_bytes());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("its public half");
        jwk.common.key_id = Some("k1".into());
        let http = StandIn::start();
        let issuer = Self { http, key, jwk };
        issuer.discovery(json!({}));
        issuer.http.on("/jwks", answer(200, json!({ "keys": [issuer.jwk] })));
        issuer
    }

    /// The discovery document, with some members changed.
    pub(crate) fn discovery(&self, change: Value) {
        let url = &self.http.url;
        let at = |path: &str| format!("{url}/{path}");
        let mut document = json!({
            "issuer": url, "jwks_uri": at("jwks"), "token_endpoint": at("token"), "authorization_endpoint": at("authorize"),
        });
        for (name, value) in change.as_object().expect("members") {
            document[name] = value.clone();
        }
        self.http.on("/.well-known/openid-configuration", answer(200, document));
    }

    pub(crate) fn sign(&self, claims: &Value, kid: &str) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("signed")
    }
}

/// A JWT with this header and a signature that is none.
pub(crate) fn unsigned(header: Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(&header), part(claims))
}

#[expect(clippy::disallowed_methods, reason = "a test's own clock")]
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_secs()).expect("in range")
}
