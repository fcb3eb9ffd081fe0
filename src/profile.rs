//! A profile: two keepers in a row.
