//! TLS in front of the sandbox: a daemon in use speaks TLS to W&B, so its idle memory is measured with TLS loaded.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::Result;

/// Forwards every connection to `upstream`, for as long as this program runs.
pub(crate) struct TlsProxy {
    pub(crate) url: String,
    /// The system's trusted certificates and ours, for SSL_CERT_FILE: as many as a real daemon reads.
    pub(crate) trusted: PathBuf,
}

impl TlsProxy {
    pub(crate) fn start(upstream: &str, dir: &Path) -> Result<Self> {
        let (key, cert) = (dir.join("tls.key"), dir.join("tls.crt"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config", "/dev/stdin"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut made = made.context("openssl")?;
        made.stdin.take().context("piped")?.write_all(CONFIG)?;
        ensure!(made.wait()?.success(), "openssl made no certificate");

        let mut trusted = std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        trusted.extend(std::fs::read(&cert)?);
        let bundle = dir.join("trusted.pem");
        std::fs::write(&bundle, trusted)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&cert)?],
                PrivateKeyDer::from_pem_file(&key)?,
            )?;
        let (config, upstream) = (Arc::new(config), upstream.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, upstream) = (Arc::clone(&config), upstream.clone());
                std::thread::spawn(move || forward(stream, config, &upstream));
            }
        });
        Ok(Self { url, trusted: bundle })
    }
}

/// One request and its answer.
fn forward(stream: TcpStream, config: Arc<ServerConfig>, upstream: &str) -> Result {
    let mut client = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut server = TcpStream::connect(upstream)?;
    let request = message(&mut client)?;
    server.write_all(&request)?;
    let answer = message(&mut server)?;
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()?;
    Ok(())
}

/// One HTTP message with a Content-Length, whole.
pub(crate) fn message(stream: &mut impl std::io::Read) -> Result<Vec<u8>> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "the connection closed in the middle of a message");
        bytes.extend_from_slice(&piece[..read]);
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.unwrap_or("0").trim().parse()?;
        if bytes.len() >= head + 4 + length {
            return Ok(bytes);
        }
    }
}

const CONFIG: &[u8] = b"[req]
prompt = no
distinguished_name = name
x509_extensions = leaf
[name]
CN = localhost
[leaf]
subjectAltName = DNS:localhost
basicConstraints = critical, CA:FALSE
";
