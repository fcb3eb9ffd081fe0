//! Responses, including broken ones: a body that ends early, or arrives one byte at a time.
//!
//! The routes build them, [`super::faults`] breaks them, [`super::server`] sends them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::time::Sleep;

pub(super) type Reply = Response<Body>;

/// How the bytes of a response are sent.
pub(super) enum Body {
    Whole(Bytes),
    /// These bytes are sent, but one more is announced, and then the connection ends.
    CutShort(Option<Bytes>),
    /// One byte each [`DRIP_INTERVAL`].
    Drip(Bytes, Pin<Box<Sleep>>),
}

impl Body {
    pub(super) fn drip(bytes: Bytes) -> Self {
        Self::Drip(bytes, Box::pin(tokio::time::sleep(DRIP_INTERVAL)))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::CutShort(bytes) => Poll::Ready(Some(match bytes.take() {
                Some(bytes) => Ok(Frame::data(bytes)),
                None => Err(io::Error::other("cut short on request")),
            })),
            Self::Drip(bytes, _) if bytes.is_empty() => Poll::Ready(None),
            Self::Drip(bytes, pause) => {
                std::task::ready!(pause.as_mut().poll(cx));
                let next = pause.deadline() + DRIP_INTERVAL;
                pause.as_mut().reset(next);
                Poll::Ready(Some(Ok(Frame::data(bytes.split_to(1)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) | Self::Drip(bytes, _) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) | Self::Drip(bytes, _) => bytes.len() as u64,
            Self::CutShort(bytes) => bytes.as_ref().map_or(0, Bytes::len) as u64 + 1,
        })
    }
}

pub(super) fn json(status: StatusCode, value: &Value) -> Reply {
    bytes(status, "application/json", Bytes::from(value.to_string()))
}

/// `200` with `value`.
pub(super) fn ok(value: &Value) -> Reply {
    json(StatusCode::OK, value)
}

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    bytes(status, "text/plain; charset=utf-8", Bytes::from(text.into()))
}

pub(super) fn bytes(status: StatusCode, kind: &'static str, bytes: Bytes) -> Reply {
    let mut reply = Response::new(Body::Whole(bytes));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// Slow enough for a response to outlast any timeout, but never silent for long.
const DRIP_INTERVAL: Duration = Duration::from_millis(200);
