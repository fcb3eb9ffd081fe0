//! The one refresh loop.
