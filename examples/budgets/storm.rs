//! Many processes at a cold daemon: one exchange for all.

use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::Result;
use crate::scene::Scene;
use crate::table::{Bound, Table};

pub(crate) fn cold(scene: &Scene, table: &mut Table) -> Result {
    let daemon = scene.daemon("storm")?;
    scene.control("POST", "/sandbox/settings", r#"{"exchange_delay_ms":200}"#)?;
    let before = scene.exchanges()?;
    let mut processes = Vec::with_capacity(PROCESSES);
    for _ in 0..PROCESSES {
        let mut command = Command::new(scene.program("wandb-cred"));
        command.arg("token").env("WANDB_CRED_SOCKET", &daemon.socket);
        processes.push(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    }
    let mut tokens = Vec::with_capacity(PROCESSES);
    for process in processes {
        let output = process.wait_with_output()?;
        ensure!(output.status.success(), "a process of the storm failed: {}", output.status);
        tokens.push(output.stdout);
    }
    let exchanges = scene.exchanges()? - before;
    scene.control("POST", "/sandbox/settings", r#"{"exchange_delay_ms":0}"#)?;
    ensure!(!tokens[0].is_empty(), "the storm got no token");
    ensure!(tokens.iter().all(|token| *token == tokens[0]), "the storm got different tokens");
    let figure = format!("exchanges in a cold storm of {PROCESSES} processes");
    let one = Bound::AtMost(1.0);
    table.exact(figure, exchanges as f64, exchanges.to_string(), one, one);
    Ok(())
}

const PROCESSES: usize = 512;
