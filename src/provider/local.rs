//! Identity tokens that another program of this machine provides: in a file, a variable or its output.

pub mod command;
pub mod env;
pub mod file;
pub mod known_variables;
mod named_file;
pub mod wandb_sso;
