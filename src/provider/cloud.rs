//! Identity tokens for the role or account that a cloud gives a machine.

pub mod aws;
pub mod azure;
pub mod fly;
pub mod gcp;
