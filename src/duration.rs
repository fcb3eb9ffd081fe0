//! Durations as people write them (`90s`, `72h`, `1h30m`) and read them (`3 h 20 min`).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A duration in the configuration: "30s", "5m", "2h" or "1h30m".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_str(AsText)
    }
}

struct AsText;

impl de::Visitor<'_> for AsText {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like \"30s\", \"5m\" or \"2h\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
        parse(text).map(HumanDuration).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// Parses `30s`, `5m`, `2h`, `3d` and sums such as `1h30m`, largest unit first.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let parsed = || {
        let span: jiff::Span = text.parse().ok()?;
        let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
        Duration::try_from(duration).ok()
    };
    parsed().ok_or_else(|| Error { text: text.to_owned() })
}

/// [`parse`] for the command line, where a bare number is seconds.
pub fn parse_argument(text: &str) -> Result<Duration, Error> {
    text.parse().map(Duration::from_secs).or_else(|_| parse(text))
}

/// The two largest units: `2 d 4 h`, `3 h 20 min`, `12 min 5 s`, `45 s`. Less than nothing is `0 s`.
pub fn text(seconds: impl TryInto<u64>) -> String {
    let seconds = seconds.try_into().unwrap_or(0);
    let (large, large_unit, small, small_unit) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3600 => (seconds / 60, "min", seconds % 60, "s"),
        3600..86400 => (seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => (seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    };
    match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    }
}

/// What was written is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration; write it like \"30s\", \"5m\" or \"2h\"")]
pub struct Error {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_as_people_write_them() {
        for (text, seconds) in [
            ("30s", 30),
            ("90sec", 90),
            ("5m", 300),
            ("15min", 900),
            ("1h30m", 5400),
            ("2h", 7200),
            ("72h", 259_200),
            ("2d", 172_800),
            ("1d2h3m4s", 93_784),
            ("1 h", 3600),
            ("PT5M", 300),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(parse_argument(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "1h30", "-1s", "-5s", "soon", "99999999999999999999s", "999999999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
            assert!(parse_argument(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_seconds_on_the_command_line_only() {
        assert_eq!(parse_argument("90"), Ok(Duration::from_secs(90)));
        assert!(parse("90").is_err());
    }

    #[test]
    fn durations_are_shown_in_two_units() {
        for (seconds, shown) in [
            (-5, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (725, "12 min 5 s"),
            (3600, "1 h"),
            (3660, "1 h 1 min"),
            (12_000, "3 h 20 min"),
            (90_000, "1 d 1 h"),
            (187_200, "2 d 4 h"),
        ] {
            assert_eq!(text(seconds), shown);
        }
    }
}
