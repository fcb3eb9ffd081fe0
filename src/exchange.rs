//! The RFC 7523 exchange: one POST, one access token.
