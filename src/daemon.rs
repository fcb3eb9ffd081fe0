//! Wiring: builds everything in order, spawns, reloads, drains.

use std::process::ExitCode;

pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
