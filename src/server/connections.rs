//! The connections as a whole: how many there are, what all of them are told, when a burst of them is over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};

use super::heap;
use super::state::State;
use crate::clock::Wake;

#[derive(Default)]
pub(super) struct Connections {
    open: AtomicUsize,
    /// The most at once since the last burst was over.
    most: AtomicUsize,
    first: Notify,
    call: watch::Sender<Call>,
}

/// What every connection hears.
#[derive(Clone, Copy, Default)]
struct Call {
    stop: bool,
    round: u64,
}

impl Connections {
    pub(super) fn opened(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(open, Ordering::Relaxed);
        if open == 1 {
            self.first.notify_one();
        }
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.call.send_modify(|call| call.stop = true);
    }

    /// Calls a round every [`ROUND`] while there is a connection, and sees when a burst is over. To be run in the
    /// runtime's thread, whose heap may have to be settled.
    ///
    /// By the kernel's timer, and one for all: a timer of the runtime's makes each of its waits a timed one, for
    /// which the kernel sets and clears a timer of its own. That costs as much as the rest of an answer.
    pub(super) async fn rounds(&self, state: &State) {
        loop {
            while self.open.load(Ordering::Relaxed) == 0 {
                self.first.notified().await;
            }
            if state.clock.sleep(ROUND).await == Wake::Stepped {
                continue;
            }
            self.call.send_modify(|call| call.round += 1);
            let open = self.open.load(Ordering::Relaxed);
            if open <= OVER && self.most.swap(open, Ordering::Relaxed) >= MANY {
                self.give_back(state).await;
            }
        }
    }

    /// Gives a burst's memory back.
    ///
    /// What began amid the burst and stays may lie above all that the burst has freed: tokens that were renewed for it, and
    /// what is kept of the last answer (hyper's rendered date, our rendered token). Those two are rendered anew once a
    /// second at most: so one answer, a second later and to ourselves, moves the date.
    async fn give_back(&self, state: &State) {
        state.clock.sleep(DATE_CHANGES).await;
        heap::settle();
        for member in state.directory().members.values() {
            member.profile.identity.resettle();
            member.profile.access.resettle();
            member.token_answer.forget();
        }
        if let Ok((mut ours, theirs)) = UnixStream::pair() {
            let asking = async move {
                ours.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    .await?;
                ours.read_to_end(&mut Vec::new()).await
            };
            let _ = tokio::join!(super::connection(theirs, state, self), asking);
        }
        // The runtime keeps a list of the sockets that were closed since it last looked for events: let it look.
        tokio::task::yield_now().await;
        heap::settle();
    }

    /// Tells at little cost whether there was a call.
    pub(super) fn calls(&self) -> Calls {
        let mut calls = self.call.subscribe();
        // The first look must find something: it is what makes `over` listen.
        calls.mark_changed();
        Calls(calls)
    }

    /// Ends when the daemon stops, or `activity` has been silent for long enough.
    pub(super) async fn over(&self, activity: &Activity) -> Over {
        let mut calls = self.call.subscribe();
        let mut silent = 0;
        while silent < SILENT_ROUNDS {
            let stop = calls.borrow_and_update().stop;
            let begun = activity.begun.load(Ordering::Relaxed);
            if stop || calls.changed().await.is_err() {
                return Over::Stopping;
            }
            silent = if activity.silent_since(begun) { silent + 1 } else { 0 };
        }
        Over::Silent
    }
}

pub(super) struct Calls(watch::Receiver<Call>);

impl Calls {
    pub(super) fn are_new(&mut self) -> bool {
        // Without a sender the daemon is stopping.
        let new = self.0.has_changed().unwrap_or(true);
        if new {
            self.0.mark_unchanged();
        }
        new
    }
}

pub(super) enum Over {
    Stopping,
    Silent,
}

/// What one connection has asked.
#[derive(Default)]
pub(super) struct Activity {
    begun: AtomicUsize,
    answered: AtomicUsize,
}

impl Activity {
    pub(super) fn begin(&self) {
        Self::count(&self.begun);
    }

    pub(super) fn answered(&self) {
        Self::count(&self.answered);
    }

    /// Only the connection's own task counts, so nothing has to be locked.
    fn count(counter: &AtomicUsize) {
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Nothing was asked and nothing is being worked on: the client is idle, sends its request too slowly, or
    /// does not take its answer.
    fn silent_since(&self, begun: usize) -> bool {
        let (now, answered) = (self.begun.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed));
        now == begun && answered == begun
    }
}

/// A connection without a request for seven rounds, 30 to 35 seconds, is closed.
const ROUND: Duration = Duration::from_secs(5);
const SILENT_ROUNDS: u32 = 7;

const DATE_CHANGES: Duration = Duration::from_millis(1100);

/// So many connections at once are a burst, and it is over when so few are left.
const MANY: usize = 64;
const OVER: usize = 8;
