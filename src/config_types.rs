//! Small types that configuration tables of several modules share.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A duration written as "30s", "5m", "2h" or "1h30m".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        parse(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is not a duration; write it like \"30s\", \"5m\" or \"2h\""
            ))
        })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h30m", 5400), ("2h", 7200), ("3d", 259_200)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "-5s", "soon"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
