//! Work that blocks (files, name look-ups), off the daemon's one thread.
//!
//! [`run`] is for our own files and for names: a few threads, and more work waits. [`within`] is for what may never end,
//! such as a file on a mount whose server is gone: it has a thread of its own, and is waited for only so long.
//!
//! tokio's own pool panics when the system gives it no thread, which takes the daemon down: a limit on processes
//! (`ulimit -u`, `pids.max`) must fail one attempt instead.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::clock::Clock;

/// Runs `work` on a thread of its own. The error says why there is none; `work` has not run then.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let place = PLACES.acquire().await.map_err(io::Error::other)?;
    let (answer, answered) = oneshot::channel();
    thread(move || {
        let outcome = work();
        drop(place);
        // Whoever asked may have given up.
        let _ = answer.send(outcome);
    })?;
    answered.await.map_err(|_| interrupted())
}

/// Runs `work`, which looks at `what` (a path, as a rule), and waits for it for `limit` at most.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`], also if an earlier look at the same thing still hangs; else why there is no thread.
pub async fn within<T: Send + 'static>(
    limit: Duration,
    what: impl AsRef<OsStr>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = oneshot::channel();
    look(limit, what.as_ref(), move || drop(answer.send(work())))?;
    match tokio::time::timeout(limit, answered).await {
        Ok(outcome) => outcome.map_err(|_| interrupted()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// [`within`], for a program that can do nothing else meanwhile.
pub fn wait<T: Send + 'static>(
    limit: Duration,
    what: impl AsRef<OsStr>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    use std::sync::mpsc;
    let (answer, answered) = mpsc::channel();
    look(limit, what.as_ref(), move || drop(answer.send(work())))?;
    answered.recv_timeout(limit).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
        mpsc::RecvTimeoutError::Disconnected => interrupted(),
    })
}

/// Starts `work`, unless an earlier look at this hangs: a dead mount must not take thread after thread.
fn look(limit: Duration, what: &OsStr, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let now = Clock::system().now().boot;
    let mut looks = looks();
    let hangs = |look: &Arc<Look>| look.what == what && now.saturating_sub(look.began) >= limit;
    if looks.iter().any(hangs) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let look = Arc::new(Look { what: what.to_owned(), began: now });
    let own = Arc::clone(&look);
    thread(move || {
        work();
        self::looks().retain(|look| !Arc::ptr_eq(look, &own));
    })?;
    looks.push(look);
    Ok(())
}

/// What a thread looks at, since when by the clock since boot.
struct Look {
    what: OsString,
    began: Duration,
}

fn looks() -> MutexGuard<'static, Vec<Arc<Look>>> {
    static LOOKS: Mutex<Vec<Arc<Look>>> = Mutex::new(Vec::new());
    LOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("blocking".to_owned()).spawn(work).map(drop)
}

fn interrupted() -> io::Error {
    io::Error::other("the work was broken off")
}

/// Each thread costs memory; more work waits.
static PLACES: Semaphore = Semaphore::const_new(16);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn work_is_done_on_another_thread_and_its_outcome_comes_back() {
        let here = std::thread::current().id();
        let there = run(|| std::thread::current().id()).await.expect("a thread");
        assert_ne!(here, there);
        for _ in 0..100 {
            run(|| ()).await.expect("places are given back");
            within(Duration::from_secs(60), "quick", || ()).await.expect("in time");
        }
    }

    #[tokio::test]
    async fn what_does_not_answer_costs_one_thread_and_a_bounded_wait() {
        let (release, blocked) = mpsc::channel::<()>();
        let error = within(LIMIT, "/a/dead/mount", move || blocked.recv().is_ok()).await.expect_err("hangs");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Another look does not even start while that one hangs.
        let error = within(LIMIT, "/a/dead/mount", || ()).await.expect_err("still hangs");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(wait(LIMIT, "/a/dead/mount", || ()).is_err() && wait(LIMIT, "/another", || ()).is_ok());
        drop(release);
        while looks().iter().any(|look| look.what == "/a/dead/mount") {
            std::thread::yield_now();
        }
        within(LIMIT, "/a/dead/mount", || ()).await.expect("it answers again");
    }

    #[tokio::test]
    async fn a_look_whose_caller_went_away_counts_as_well() {
        let (_release, blocked) = mpsc::channel::<()>();
        let look = within(LIMIT, "/left", move || blocked.recv().is_ok());
        assert!(tokio::time::timeout(LIMIT / 10, look).await.is_err(), "nobody waits for it any more");
        let asked = async { while within(LIMIT, "/left", || ()).await.is_ok() {} };
        tokio::time::timeout(LIMIT * 10, asked).await.expect("refused once it has hung for too long");
    }
}
