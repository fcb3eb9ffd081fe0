//! How long to wait before trying again. Pure: it neither sleeps nor reads a clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Exponential delay with full jitter, between `first / 2` and `most`.
///
/// Full jitter spreads a fleet that failed together (AWS Architecture Blog, "Exponential Backoff And
/// Jitter"); the lower bound keeps a lucky draw from making a tight loop.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row (1 for the first). The server's own word
    /// (`Retry-After`) is a floor, itself bounded by [`RETRY_AFTER_MOST`].
    pub fn delay(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.most);
        let drawn = ceiling.mul_f64(fastrand::f64()).max(self.first / 2);
        match retry_after {
            // A little above what was asked, so that many clients that were told the same do not come back together.
            Some(asked) => drawn.max(asked.min(RETRY_AFTER_MOST).mul_f64(1.0 + 0.1 * fastrand::f64())),
            None => drawn,
        }
    }
}

/// A server that asks for more is not believed: an hour of silence is long enough to notice a recovery late.
pub const RETRY_AFTER_MOST: Duration = Duration::from_secs(3600);

/// Reads a `Retry-After` value: seconds or an HTTP date (RFC 9110, section 10.2.3).
pub fn parse_retry_after(value: &str, now: crate::clock::Now) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok()?;
    Some(Duration::try_from(date.duration_since(now.wall)).unwrap_or_default())
}

/// Backoff for log lines that others can cause as often as they like: lets through the 1st, 2nd, 4th, 8th, ... of them.
#[derive(Debug, Default)]
pub struct Thinned(AtomicU64);

impl Thinned {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// How often it has happened by now, if that is to be said.
    pub fn count(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };

    #[test]
    fn delays_stay_within_their_bounds() {
        for failures in 0..200 {
            let delay = BACKOFF.delay(failures, None);
            assert!(delay >= BACKOFF.first / 2 && delay <= BACKOFF.most, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn of_many_log_lines_few_are_written() {
        let lines = Thinned::new();
        let written: Vec<u64> = (0..1_000_000).filter_map(|_| lines.count()).collect();
        assert_eq!(written[..4], [1, 2, 4, 8]);
        assert_eq!(written.len(), 20);
    }

    #[test]
    fn delays_grow_with_failures() {
        let mean = |failures| (0..500).map(|_| BACKOFF.delay(failures, None)).sum::<Duration>() / 500;
        assert!(mean(6) > 4 * mean(2));
    }

    #[test]
    fn the_servers_word_is_a_floor_and_is_bounded() {
        assert!(BACKOFF.delay(1, Some(Duration::from_secs(30))) >= Duration::from_secs(30));
        assert!(BACKOFF.delay(1, Some(Duration::MAX)) <= RETRY_AFTER_MOST.mul_f64(1.1));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wall = jiff::Timestamp::from_second(784_111_777).expect("in range");
        let now = crate::clock::Now { wall, boot: Duration::ZERO, skew: 0 };
        assert_eq!(parse_retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        let date = parse_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now);
        assert_eq!(date, Some(Duration::from_secs(60)));
        assert_eq!(parse_retry_after("soon", now), None);
    }
}
