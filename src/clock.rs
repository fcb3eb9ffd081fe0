//! The one place that reads the time and waits for it.
//!
//! Tokens end by the wall clock, so waiting is by the wall clock too: a process that slept through a
//! suspend must find itself late, not early.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

// The command reads the time and never waits for it.
#[cfg(feature = "daemon")]
mod sleep;
#[cfg(feature = "daemon")]
pub use sleep::{Wake, disagree};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall-clock time, UTC.
    pub wall: Timestamp,
    /// Time since boot, suspend included; never steps.
    pub boot: Duration,
}

/// The source of time, handed to whoever needs it.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    #[cfg(test)]
    Test(test::Paused),
}

impl Clock {
    pub fn system() -> Self {
        Self(Kind::System)
    }

    #[inline]
    pub fn now(&self) -> Now {
        match &self.0 {
            Kind::System => system_now(),
            #[cfg(test)]
            Kind::Test(paused) => paused.now(),
        }
    }
}

#[inline]
fn system_now() -> Now {
    let wall = clock_gettime(ClockId::Realtime);
    // Past the year 9999, jiff's last, every token has expired.
    let wall = Timestamp::new(wall.tv_sec, wall.tv_nsec as i32).unwrap_or(Timestamp::MAX);
    let boot = clock_gettime(BOOT_CLOCK);
    Now { wall, boot: Duration::new(boot.tv_sec.unsigned_abs(), boot.tv_nsec.unsigned_abs() as u32) }
}

#[cfg(target_os = "linux")]
const BOOT_CLOCK: ClockId = ClockId::Boottime;
/// On macOS `CLOCK_MONOTONIC` goes on during sleep, as Linux' boot clock does.
#[cfg(not(target_os = "linux"))]
const BOOT_CLOCK: ClockId = ClockId::Monotonic;

#[cfg(test)]
pub(crate) mod test {
    //! A clock that follows tokio's paused time and can be stepped.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[derive(Clone, Debug)]
    pub(crate) struct Paused {
        start: tokio::time::Instant,
        wall_offset: Arc<AtomicI64>,
        stepped: Arc<Notify>,
    }

    impl Clock {
        /// Follows tokio's time; use under `#[tokio::test(start_paused = true)]`.
        pub(crate) fn paused() -> Self {
            Self(Kind::Test(Paused {
                start: tokio::time::Instant::now(),
                wall_offset: Arc::default(),
                stepped: Arc::default(),
            }))
        }

        /// Sets the wall clock forward (or back) by `seconds`, as an administrator or NTP does.
        pub(crate) fn step(&self, seconds: i64) {
            let Kind::Test(paused) = &self.0 else { panic!("only a paused clock steps") };
            paused.wall_offset.fetch_add(seconds, Ordering::Relaxed);
            paused.stepped.notify_waiters();
        }
    }

    impl Paused {
        pub(super) fn now(&self) -> Now {
            let boot = self.start.elapsed();
            let offset = jiff::SignedDuration::from_secs(self.wall_offset.load(Ordering::Relaxed));
            let base = Timestamp::from_second(1_800_000_000).expect("in range");
            Now { wall: base + boot + offset, boot }
        }

        pub(super) async fn sleep(&self, duration: Duration) -> Wake {
            tokio::select! {
                () = tokio::time::sleep(duration) => Wake::Elapsed,
                () = self.stepped.notified() => Wake::Stepped,
            }
        }
    }

    #[test]
    fn a_set_clock_is_told_from_passing_time() {
        let before = system_now();
        let mut after = before;
        after.wall += Duration::from_secs(60);
        assert!(disagree(before, after));
        after.boot += Duration::from_secs(59);
        assert!(!disagree(before, after));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_clock_sleeps_by_timerfd() {
        let clock = Clock::system();
        let before = clock.now();
        assert_eq!(clock.sleep(Duration::from_millis(20)).await, Wake::Elapsed);
        assert!(clock.now().boot - before.boot >= Duration::from_millis(19));
    }
}
