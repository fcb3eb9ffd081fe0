//! When a good token is renewed. Pure arithmetic.

use std::time::Duration;

use crate::token::Renewal;

/// Which limits a kept token must respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Renew at 60 to 70 % of life.
    Fraction,
    /// The same, and sooner where that keeps more than the SDK's 300 s (or better 600 s) in what is published.
    SdkMargin,
}

impl Policy {
    /// How long to wait before renewing a token that has `life` left.
    pub fn renew_in(self, life: Duration, renewal: &Renewal) -> Duration {
        let fraction = life.mul_f64(0.6 + 0.1 * fastrand::f64());
        let wait = match self {
            Self::Fraction => fraction,
            Self::SdkMargin => {
                // As early as every third of a life for comfort, every sixth to stay above the hard limit.
                let comfort = life.saturating_sub(COMFORT + SLACK).max(life / 3);
                let limit = life.saturating_sub(SDK_LIMIT + SLACK).max(life / 12);
                if life > SDK_LIMIT { fraction.min(comfort).min(limit) } else { fraction }
            }
        };
        // A source that caches answers the same token until its own time has come.
        let wait = match renewal.not_before_expiry {
            Some(margin) => wait.max(life.saturating_sub(margin)),
            None => wait,
        };
        wait.max(SHORTEST.min(life / 2))
    }
}

/// At 300 s of life or less the SDK exchanges by itself (wandb 0.19.11 to 0.31.0).
const SDK_LIMIT: Duration = Duration::from_secs(300);

/// What published tokens keep where their life allows.
const COMFORT: Duration = Duration::from_secs(600);

/// For the renewal itself to take place.
const SLACK: Duration = Duration::from_secs(15);

/// However little life a source gives, it is not asked more often.
const SHORTEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(policy: Policy, life: u64) -> u64 {
        policy.renew_in(Duration::from_secs(life), &Renewal::default()).as_secs()
    }

    #[test]
    fn usual_tokens_are_renewed_at_sixty_to_seventy_percent() {
        for _ in 0..100 {
            assert!((2160..=2520).contains(&wait(Policy::SdkMargin, 3600)));
            assert!((180..=210).contains(&wait(Policy::Fraction, 300)));
        }
    }

    #[test]
    fn what_is_published_stays_above_the_sdks_limit_where_life_allows() {
        for life in [330, 360, 400, 600, 700, 900, 1200, 3600] {
            let left = life - wait(Policy::SdkMargin, life);
            assert!(left > 300, "{life}: {left} s left");
        }
        for life in [930, 1200, 1800, 3600] {
            let left = life - wait(Policy::SdkMargin, life);
            assert!(left > 600, "{life}: {left} s left");
        }
    }

    #[test]
    fn short_lives_never_make_a_tight_loop() {
        for life in [2, 10, 30, 299, 301, 310] {
            let wait = Policy::SdkMargin.renew_in(Duration::from_secs(life), &Renewal::default());
            assert!(wait >= Duration::from_secs(1) && wait < Duration::from_secs(life), "{life}: {wait:?}");
        }
    }

    #[test]
    fn a_caching_source_is_not_asked_before_its_time() {
        let day = Duration::from_secs(86_400);
        let renewal =
            Renewal { not_before_expiry: Some(Duration::from_secs(4 * 3600)), ..Renewal::default() };
        assert!(Policy::Fraction.renew_in(day, &renewal) >= Duration::from_secs(20 * 3600));
    }
}
