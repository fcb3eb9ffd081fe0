//! Identity tokens that another program of this machine keeps: a file, a variable, a program's output.

pub mod command;
pub mod env;
pub mod file;
pub mod wandb_sso;
