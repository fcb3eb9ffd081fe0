//! What the daemon's throughput is compared with: hyper on a single-threaded runtime, answering fixed bytes.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;

use crate::Result;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Baseline {
    /// hyper and nothing else
    Bare,
    /// With the timeouts and limits of `src/server.rs`
    Limited,
}

impl Baseline {
    pub(crate) fn serve(self, socket: &Path, body: Vec<u8>) -> Result {
        let body = Bytes::from(body);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = UnixListener::bind(socket)?;
            let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            loop {
                let slot = match self {
                    Self::Bare => None,
                    Self::Limited => Some(Arc::clone(&slots).acquire_owned().await?),
                };
                let (stream, _) = listener.accept().await?;
                let body = body.clone();
                let service = service_fn(move |_request| {
                    let mut answer = Response::new(Full::new(body.clone()));
                    let headers = answer.headers_mut();
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                    std::future::ready(Ok::<_, Infallible>(answer))
                });
                let mut http = http1::Builder::new();
                match self {
                    Self::Bare => {
                        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
                    }
                    Self::Limited => {
                        let mut stream = TimeoutWriter::new(stream);
                        stream.set_timeout(Some(TIMEOUT));
                        http.timer(TokioTimer::new());
                        http.header_read_timeout(TIMEOUT).max_buf_size(MAX_HEAD).half_close(true);
                        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
                        tokio::spawn(async move {
                            let _ = connection.await;
                            drop(slot);
                        });
                    }
                }
            }
        })
    }
}

// As in `src/server.rs`.
const MAX_CONNECTIONS: usize = 4096;
const MAX_HEAD: usize = 16 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);
