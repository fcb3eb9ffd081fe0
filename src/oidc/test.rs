//! An identity provider for tests: it answers what it is told to, and signs with a key of its own.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::elliptic_curve::rand_core::OsRng;
use p256::pkcs8::EncodePrivateKey as _;
use serde_json::{Value, json};

/// An ES256 key, whose id is `k1`.
pub(crate) struct Signer(EncodingKey);

impl Signer {
    pub(crate) fn new() -> Self {
        let secret = p256::SecretKey::random(&mut OsRng).to_pkcs8_der().expect("a key");
        Self(EncodingKey::from_ec_der(secret.as_bytes()))
    }

    /// The public half, with the oddities that key sets have.
    pub(crate) fn jwk(&self) -> Value {
        let public = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.0, Algorithm::ES256).expect("its half");
        let mut jwk = serde_json::to_value(public).expect("plain JSON");
        jwk["kid"] = json!("k1");
        jwk["x5c"] = json!("not a list");
        jwk["key_ops"] = json!("verify");
        jwk["ext"] = json!("true");
        jwk
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.0).expect("signed")
    }
}

/// Answers by path; 404 for the others.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) url: String,
    routes: Arc<Mutex<HashMap<String, (u16, String)>>>,
    requests: Arc<Mutex<Vec<String>>>,
    last: Arc<Mutex<String>>,
    held: Arc<(Mutex<bool>, Condvar)>,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let this = Self {
            url,
            routes: Arc::default(),
            requests: Arc::default(),
            last: Arc::default(),
            held: Arc::default(),
        };
        let serving = this.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serving.serve(stream)));
        this
    }

    pub(crate) fn on(&self, path: &str, status: u16, body: impl ToString) {
        self.routes.lock().expect("not poisoned").insert(path.to_owned(), (status, body.to_string()));
    }

    /// Whether it keeps its answers back.
    pub(crate) fn hold(&self, hold: bool) {
        *self.held.0.lock().expect("not poisoned") = hold;
        self.held.1.notify_all();
    }

    /// How often this path was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.requests.lock().expect("not poisoned").iter().filter(|asked| *asked == path).count()
    }

    /// The last request, as it came.
    pub(crate) fn asked(&self) -> String {
        self.last.lock().expect("not poisoned").clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length =
                    head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    break;
                }
            }
            match stream.read(&mut piece) {
                Ok(read) if read > 0 => bytes.extend_from_slice(&piece[..read]),
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        *self.last.lock().expect("not poisoned") = text.to_string();
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        self.requests.lock().expect("not poisoned").push(path.clone());
        drop(self.held.1.wait_while(self.held.0.lock().expect("not poisoned"), |held| *held));
        let routes = self.routes.lock().expect("not poisoned");
        let (status, body) = routes.get(&path).cloned().unwrap_or((404, String::new()));
        let _ = write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}
