//! Identity tokens of a job in a CI system.

pub mod azure_pipelines;
pub mod buildkite;
pub mod circleci;
pub mod github_actions;
pub mod gitlab;
