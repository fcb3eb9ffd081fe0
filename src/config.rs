//! The configuration file: parsed into valid types, checked, explained.
