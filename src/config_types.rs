//! The former place of durations in the configuration.

pub use crate::duration::HumanDuration as Seconds;
