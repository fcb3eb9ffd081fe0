//! Bodies on their way: streamed, or small enough to be sent twice.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::counts::Counts;
use super::rewrite::Rewrite;

/// What hyper sends, either way.
pub(super) enum Body {
    Whole(Bytes),
    Stream(Box<Stream>),
}

/// A body that passes through.
pub(super) struct Stream {
    /// What was read of it before.
    prefix: Bytes,
    /// None once it has ended.
    incoming: Option<Incoming>,
    rewrite: Option<Rewrite>,
    quiet: Quiet,
    activity: Activity,
    counts: Counts,
    /// Upload or download.
    outward: bool,
}

/// When the last piece of a request's body went on its way.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits for `answer` as long as something moves.
    pub(super) async fn wait<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(answer);
        loop {
            let deadline = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + INACTIVITY;
            if deadline <= Instant::now() {
                return None;
            }
            tokio::select! {
                answer = &mut answer => return Some(answer),
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}

/// Ends a silence that is too long.
struct Quiet(Option<Pin<Box<Sleep>>>);

impl Quiet {
    /// Called while nothing comes.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(INACTIVITY))).as_mut().poll(cx)
    }

    fn broken(&mut self) {
        if let Some(sleep) = &mut self.0 {
            sleep.as_mut().reset(Instant::now() + INACTIVITY);
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nothing came for {} s", INACTIVITY.as_secs())]
struct Silent;

impl Stream {
    pub(super) fn outward(prefix: Bytes, incoming: Incoming, activity: Activity, counts: Counts) -> Self {
        let incoming = Some(incoming);
        Self { prefix, incoming, rewrite: None, quiet: Quiet(None), activity, counts, outward: true }
    }

    pub(super) fn inward(incoming: Incoming, rewrite: Option<Rewrite>, counts: Counts) -> Self {
        let (prefix, activity) = (Bytes::new(), Activity::new());
        let incoming = Some(incoming);
        Self { prefix, incoming, rewrite, quiet: Quiet(None), activity, counts, outward: false }
    }

    fn pass(&mut self, piece: Bytes) -> Bytes {
        self.quiet.broken();
        if self.outward {
            self.activity.now();
            self.counts.sent(piece.len());
        } else {
            self.counts.received(piece.len());
        }
        match &mut self.rewrite {
            Some(rewrite) => rewrite.piece(piece),
            None => piece,
        }
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let stream = match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Whole(bytes) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream,
        };
        if !stream.prefix.is_empty() {
            let prefix = std::mem::take(&mut stream.prefix);
            return Poll::Ready(Some(Ok(Frame::data(stream.pass(prefix)))));
        }
        loop {
            let Some(incoming) = &mut stream.incoming else { return Poll::Ready(None) };
            let frame = match Pin::new(incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(stream.quiet.poll(cx));
                    return Poll::Ready(Some(Err(Silent.into())));
                }
            };
            let Some(frame) = frame.transpose()? else {
                stream.incoming = None;
                let rest = stream.rewrite.as_mut().map(Rewrite::end).unwrap_or_default();
                return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
            };
            // Trailers belong to the framing, which ends here. A rewrite may hold back all of a piece.
            if let Ok(piece) = frame.into_data() {
                let piece = stream.pass(piece);
                if !piece.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(stream) => {
                let ended = stream.incoming.as_ref().is_none_or(hyper::body::Body::is_end_stream);
                ended && stream.prefix.is_empty() && stream.rewrite.is_none()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) if stream.rewrite.is_some() => SizeHint::default(),
            Self::Stream(stream) => {
                let rest = stream.incoming.as_ref().map(hyper::body::Body::size_hint).unwrap_or_default();
                let length = stream.prefix.len() as u64;
                rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + length))
            }
        }
    }
}

impl Drop for Stream {
    /// A client that still sends when its answer is there would never read it if we hung up.
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take().filter(|_| self.outward) {
            tokio::spawn(drain(incoming));
        }
    }
}

/// Takes what is left of a body, within limits.
pub(super) async fn drain(mut body: Incoming) {
    let mut left = MAX_DRAINED;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}

/// The body of a request as far as it was read before the request is sent.
pub(super) enum Upload {
    /// All of it, and its place in the memory for such.
    Whole(Bytes, Option<OwnedSemaphorePermit>),
    /// Too large, or too many others are kept.
    Part(Bytes, Incoming),
}

impl Upload {
    /// Reads a body whole if it is small and `memory` (counted in KiB) has room. The error says that it broke off.
    pub(super) async fn read(
        mut body: Incoming,
        memory: &Arc<Semaphore>,
    ) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        use hyper::body::Body as _;
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new(), None));
        }
        let length = body
            .size_hint()
            .exact()
            .map_or(MAX_REPLAYED, |length| usize::try_from(length).unwrap_or(usize::MAX));
        if length > MAX_REPLAYED {
            return Ok(Self::Part(Bytes::new(), body));
        }
        let kibibytes = u32::try_from(length.div_ceil(1024)).expect("at most a mebibyte");
        let Ok(permit) = Arc::clone(memory).try_acquire_many_owned(kibibytes) else {
            return Ok(Self::Part(Bytes::new(), body));
        };
        let mut read = BytesMut::new();
        loop {
            let Some(frame) = tokio::time::timeout(INACTIVITY, body.frame()).await? else {
                return Ok(Self::Whole(read.freeze(), Some(permit)));
            };
            if let Ok(piece) = frame?.into_data() {
                read.extend_from_slice(&piece);
            }
            if read.len() > MAX_REPLAYED {
                return Ok(Self::Part(read.freeze(), body));
            }
        }
    }
}

/// Neither side may be silent for longer. Whole requests have no limit: uploads take hours.
pub(super) const INACTIVITY: Duration = Duration::from_secs(200);

/// A larger body is not kept to be sent again.
const MAX_REPLAYED: usize = 1024 * 1024;

/// For all bodies that are kept, in KiB.
pub(super) const REPLAY_MEMORY: usize = 32 * 1024;

/// Of a body that nobody wants any more.
const MAX_DRAINED: usize = 64 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_awaited_as_long_as_something_moves() {
        let activity = Activity::new();
        let (moving, begin) = (activity.clone(), Instant::now());
        tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(150)).await;
                moving.now();
            }
        });
        assert_eq!(activity.wait(std::future::pending::<()>()).await, None);
        assert_eq!(begin.elapsed(), Duration::from_secs(5 * 150) + INACTIVITY);
        let slow = tokio::time::sleep(INACTIVITY * 2);
        assert_eq!(Activity::new().wait(slow).await, None, "silence alone is not waited for");
        let answer = async { 1 };
        assert_eq!(Activity::new().wait(answer).await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_ends_and_progress_begins_it_anew() {
        let mut quiet = Quiet(None);
        let begin = Instant::now();
        let mut pieces = 0;
        std::future::poll_fn(|cx| {
            ready!(quiet.poll(cx));
            if pieces < 2 {
                pieces += 1;
                quiet.broken();
                return quiet.poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(begin.elapsed(), INACTIVITY * 3);
    }
}
