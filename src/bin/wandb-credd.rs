#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    wandb_cred::daemon::main()
}
