//! The one place that reads the time and waits for it.
//!
//! Tokens end by the wall clock, so waiting is by the wall clock too: a process that slept through a
//! suspend must find itself late, not early.

#[cfg(test)]
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

mod sleep;
pub use sleep::{Wake, disagree};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall-clock time, UTC.
    pub wall: Timestamp,
    /// Time since boot, suspend included; never steps.
    pub boot: Duration,
    /// How far the servers' clocks are ahead of `wall`, in whole seconds, as far as is known; at most [`MAX_SKEW`].
    pub skew: i64,
}

impl Now {
    /// The time of the servers, by which they judge what others issued.
    pub fn server_time(&self) -> Timestamp {
        shift(self.wall, self.skew)
    }

    /// When it will be `at` for the servers, by our wall clock.
    pub fn to_local(&self, at: Timestamp) -> Timestamp {
        shift(at, -self.skew)
    }
}

fn shift(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}

/// `at` for a person, by the time zone of this machine: `07:15`, and with the date if that is another than today's.
pub fn local(at: Timestamp) -> String {
    in_zone(at, system_now().wall, TimeZone::system())
}

fn in_zone(at: Timestamp, now: Timestamp, zone: TimeZone) -> String {
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let form = if at.date() == now.date() { "%H:%M" } else { "%F %H:%M" };
    at.strftime(form).to_string()
}

/// The source of time, passed to everything that needs it. Clones share what is known of the servers' clocks.
#[derive(Clone, Debug)]
pub struct Clock {
    kind: Kind,
    /// What the last server said that was asked.
    told: Arc<Mutex<Option<Told>>>,
}

/// What a server's `Date` says of our clock.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// See [`Now::skew`].
    skew: i64,
    /// Our clocks at that moment: once they disagree, the wall clock was set, and `skew` is void.
    at: Now,
}

#[derive(Clone, Debug)]
enum Kind {
    System,
    /// Off by so many seconds, for a stand-in server.
    Off(i64),
    #[cfg(test)]
    Test(test::Paused),
}

impl Clock {
    pub fn system() -> Self {
        Self::of(Kind::System)
    }

    /// As of a machine whose wall clock is `seconds` ahead.
    pub fn system_ahead(seconds: i64) -> Self {
        Self::of(Kind::Off(seconds))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, told: Arc::default() }
    }

    /// The same time, with its own opinion of the servers' clocks.
    pub fn with_own_skew(&self) -> Self {
        Self::of(self.kind.clone())
    }

    pub fn now(&self) -> Now {
        let now = self.read();
        let mut told = self.told();
        // Nobody says by how much the wall clock is right now: the next server does.
        *told = told.filter(|told| !disagree(told.at, now));
        Now { skew: told.map_or(0, |told| told.skew), ..now }
    }

    fn read(&self) -> Now {
        match &self.kind {
            Kind::System => system_now(),
            Kind::Off(seconds) => {
                let now = system_now();
                Now { wall: shift(now.wall, *seconds), ..now }
            }
            #[cfg(test)]
            Kind::Test(paused) => paused.now(),
        }
    }

    /// How far the servers are ahead, in seconds; `None` until one has told the time, and after our clock was set.
    pub fn skew(&self) -> Option<i64> {
        self.now();
        self.told().map(|told| told.skew)
    }

    /// A server has told the time (see [`skew`]). One that is further off than [`MAX_SKEW`] is not believed: it may be
    /// wrong itself, and its word must not decide how long tokens live.
    pub fn set_skew(&self, skew: i64) {
        if skew.abs() <= MAX_SKEW {
            *self.told() = Some(Told { skew, at: self.read() });
        }
    }

    /// What is known of the servers' clocks may be wrong.
    pub fn forget_skew(&self) {
        *self.told() = None;
    }

    fn told(&self) -> MutexGuard<'_, Option<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a server is ahead of us that said `date` (whole seconds, as HTTP's `Date`) between our `sent` and
/// `received`, in seconds: 0 where the time on the way and the rounding explain the difference.
pub fn skew(date: Timestamp, sent: Now, received: Now) -> i64 {
    let least = date.as_second() - received.wall.as_second();
    let most = date.as_second() + 1 - sent.wall.as_second();
    0.clamp(least.min(most), most)
}

/// How far a server's clock is believed, in seconds: above what machines without NTP drift in months (and above Kerberos'
/// 5 minutes), below the life of tokens.
pub const MAX_SKEW: i64 = 20 * 60;

fn system_now() -> Now {
    let wall = clock_gettime(ClockId::Realtime);
    // Past the year 9999, jiff's last, every token has expired.
    let wall = Timestamp::new(wall.tv_sec, wall.tv_nsec as i32).unwrap_or(Timestamp::MAX);
    let boot = clock_gettime(BOOT_CLOCK);
    let boot = Duration::new(boot.tv_sec.unsigned_abs(), boot.tv_nsec.unsigned_abs() as u32);
    Now { wall, boot, skew: 0 }
}

#[cfg(target_os = "linux")]
const BOOT_CLOCK: ClockId = ClockId::Boottime;
/// On macOS `CLOCK_MONOTONIC` goes on during sleep, as Linux' boot clock does.
#[cfg(not(target_os = "linux"))]
const BOOT_CLOCK: ClockId = ClockId::Monotonic;

#[cfg(test)]
pub(crate) mod test {
    //! A clock that follows tokio's paused time and can be stepped.

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
            Self::of(Kind::Test(Paused {
                start: tokio::time::Instant::now(),
                wall_offset: Arc::default(),
                stepped: Arc::default(),
            }))
        }

        /// Sets the wall clock forward (or back) by `seconds`, as an administrator or NTP does.
        pub(crate) fn step(&self, seconds: i64) {
            let Kind::Test(paused) = &self.kind else { panic!("only a paused clock steps") };
            paused.wall_offset.fetch_add(seconds, Ordering::Relaxed);
            paused.stepped.notify_waiters();
        }
    }

    impl Paused {
        pub(super) fn now(&self) -> Now {
            let boot = self.start.elapsed();
            let offset = SignedDuration::from_secs(self.wall_offset.load(Ordering::Relaxed));
            let base = Timestamp::from_second(1_800_000_000).expect("in range");
            Now { wall: base + boot + offset, boot, skew: 0 }
        }

        pub(super) async fn sleep(&self, duration: Duration) -> Wake {
            tokio::select! {
                () = tokio::time::sleep(duration) => Wake::Elapsed,
                () = self.stepped.notified() => Wake::Stepped,
            }
        }
    }

    #[test]
    fn a_set_clock_is_distinguished_from_passing_time() {
        let before = system_now();
        let mut after = before;
        after.wall += Duration::from_secs(60);
        assert!(disagree(before, after));
        after.boot += Duration::from_secs(59);
        assert!(!disagree(before, after));
    }

    #[test]
    fn a_server_in_another_year_is_not_believed() {
        let clock = Clock::system();
        for absurd in
            [MAX_SKEW + 1, -MAX_SKEW - 1, 3 * 3600, i64::MAX, -i64::MAX, 2_200_000_000, -1_700_000_000]
        {
            clock.set_skew(absurd);
            assert_eq!((clock.skew(), clock.now().skew), (None, 0), "{absurd}");
        }
        clock.set_skew(-MAX_SKEW);
        clock.set_skew(86_400);
        assert_eq!(clock.skew(), Some(-MAX_SKEW), "what a sane server said stays");
        clock.forget_skew();
        assert_eq!(clock.skew(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_voids_what_servers_said_of_it() {
        for step in [600, -600, 3 * 3600, -3 * 3600] {
            let clock = Clock::paused();
            clock.set_skew(600);
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert_eq!(clock.now().skew, 600, "time that passes changes nothing");
            clock.step(step);
            assert_eq!((clock.now().skew, clock.skew()), (0, None), "{step}");
        }
    }

    #[test]
    fn only_what_the_way_does_not_explain_is_skew() {
        let at = |seconds: i64| Now {
            wall: Timestamp::from_second(1_000_000 + seconds).expect("in range"),
            boot: Duration::ZERO,
            skew: 0,
        };
        let told = |seconds| skew(at(seconds).wall, at(0), at(10));
        assert_eq!([-1, 0, 5, 10].map(told), [0; 4]);
        assert_eq!((told(-61), told(310)), (-60, 300));
        // Our clock was set back meanwhile: no panic, and no nonsense.
        assert_eq!(skew(at(5).wall, at(10), at(0)), -4);
    }

    #[test]
    fn a_server_behind_us_sees_a_token_end_later_by_our_clock() {
        let clock = Clock::system();
        let own = clock.with_own_skew();
        clock.set_skew(-600);
        let now = clock.now();
        assert_eq!(now.server_time() + Duration::from_secs(600), now.wall);
        assert_eq!(now.to_local(now.server_time()), now.wall);
        assert_eq!((own.skew(), own.now().skew), (None, 0), "each profile has its own skew");
        assert_eq!(Now { skew: i64::MAX, ..now }.server_time(), now.wall, "absurd skew is ignored");
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
