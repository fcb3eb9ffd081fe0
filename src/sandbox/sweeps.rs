//! Sweeps: an agent asks what to run next, and is told to stop after a few runs. The operations are those of wandb 0.12.21 to
//! 0.31.0.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::server::State;

/// By name.
#[derive(Default)]
pub(super) struct Sweeps(BTreeMap<String, Sweep>);

#[derive(Default)]
struct Sweep {
    config: Value,
    /// How many runs its agents were told to make.
    runs: usize,
}

/// The answer's `data`; `None` if the operation is not about sweeps.
pub(super) fn graphql(state: &State, operation: &str, variables: &Value) -> Option<Value> {
    let mut sweeps = state.sweeps();
    let text = |name: &str| variables[name].as_str().unwrap_or_default();
    Some(match operation {
        "UpsertSweep" => {
            let name = match text("id") {
                "" => format!("sweep{}", sweeps.0.len()),
                id => id.to_owned(),
            };
            if sweeps.0.len() < MAX_SWEEPS {
                sweeps.0.entry(name.clone()).or_default().config = variables["config"].clone();
            }
            let entity = json!({ "id": text("entityName"), "name": text("entityName") });
            let project = json!({ "id": text("projectName"), "name": text("projectName"), "entity": entity });
            json!({ "upsertSweep": {
                "sweep": { "id": name, "name": name, "project": project }, "configValidationWarnings": [] } })
        }
        "Sweep" | "SweepWithRuns" | "GetSweep" | "GetSweepLegacy" => {
            let name = if text("sweep").is_empty() { text("name") } else { text("sweep") };
            let sweep = sweeps.0.get(name).map(|sweep| {
                json!({ "__typename": "Sweep", "id": name, "name": name, "displayName": name, "method": "grid",
                    "state": "RUNNING", "description": null, "config": sweep.config,
                    "createdAt": "2026-01-01T00:00:00", "updatedAt": null, "heartbeatAt": null,
                    "earlyStopJobRunning": false, "bestLoss": null, "controller": null, "scheduler": null,
                    "runCount": sweep.runs, "runCountExpected": RUNS, "runs": { "edges": [] } })
            });
            json!({ "project": { "sweep": sweep } })
        }
        // An agent's own name says which sweep it is for.
        "CreateAgent" => {
            sweeps.0.get(text("sweep"))?;
            json!({ "createAgent": { "agent": { "id": text("sweep") } } })
        }
        "Heartbeat" => {
            let name = text("id");
            let sweep = sweeps.0.get_mut(name)?;
            // Which runs go on, by name.
            let busy = variables["runState"].as_str().is_some_and(|state| state.contains(':'));
            let commands = match sweep.runs {
                _ if busy => json!([]),
                RUNS => json!([{ "type": "exit" }]),
                number => {
                    sweep.runs += 1;
                    json!([{ "type": "run", "run_id": format!("{name}-{number}"), "program": "train.py",
                        "args": { "lr": { "value": number } } }])
                }
            };
            json!({ "agentHeartbeat": { "agent": { "id": name }, "commands": commands.to_string() } })
        }
        _ => return None,
    })
}

/// Of each sweep.
const RUNS: usize = 2;

const MAX_SWEEPS: usize = 1_000;
