//! Work that blocks (files, name look-ups), off the daemon's one thread.
//!
//! tokio's own pool panics when the system gives it no thread, which takes the daemon down: a limit on processes
//! (`ulimit -u`, `pids.max`) must fail one attempt instead.

use std::io;

use tokio::sync::{Semaphore, oneshot};

/// Runs `work` on a thread of its own. The error says why there is none; `work` has not run then.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let place = PLACES.acquire().await.map_err(io::Error::other)?;
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new().name("blocking".to_owned()).spawn(move || {
        let outcome = work();
        drop(place);
        // Whoever asked may have given up.
        let _ = answer.send(outcome);
    })?;
    answered.await.map_err(|_| io::Error::other("the work was broken off"))
}

/// Each thread costs memory; more work waits.
static PLACES: Semaphore = Semaphore::const_new(16);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_on_another_thread_and_its_outcome_comes_back() {
        let here = std::thread::current().id();
        let there = run(|| std::thread::current().id()).await.expect("a thread");
        assert_ne!(here, there);
        for _ in 0..100 {
            run(|| ()).await.expect("places are given back");
        }
    }
}
