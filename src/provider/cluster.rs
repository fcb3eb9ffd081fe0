//! Identity tokens of a workload in a cluster.

pub mod kubernetes;
pub mod spiffe;
