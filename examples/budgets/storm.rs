//! Many processes that ask a daemon without a token, all at once: one exchange serves them all.

use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::Result;
use crate::setup::Setup;
use crate::table::Table;

pub(crate) fn exchanges(setup: &Setup, table: &mut Table) -> Result {
    let daemon = setup.daemon("storm")?;
    setup.control("POST", "/sandbox/settings", r#"{"exchange_delay_ms":200}"#)?;
    let before = setup.exchanges()?;
    let mut processes = Vec::with_capacity(PROCESSES);
    for _ in 0..PROCESSES {
        let mut command = Command::new(setup.program("wandb-cred"));
        command.arg("token").env("WANDB_CRED_SOCKET", &daemon.socket);
        processes.push(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    }
    let mut tokens = Vec::with_capacity(PROCESSES);
    for process in processes {
        let output = process.wait_with_output()?;
        ensure!(output.status.success(), "a process of the storm failed: {}", output.status);
        tokens.push(output.stdout);
    }
    let exchanges = setup.exchanges()? - before;
    setup.control("POST", "/sandbox/settings", r#"{"exchange_delay_ms":0}"#)?;
    ensure!(!tokens[0].is_empty(), "the storm got no token");
    ensure!(tokens.iter().all(|token| *token == tokens[0]), "the storm got different tokens");
    table.add_exact(format!("exchanges for {PROCESSES} cold processes"), 1, exchanges);
    Ok(())
}

const PROCESSES: usize = 512;
