//! The daemon under load beside the floor, and with a hanging renewal beside itself.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::load::{Load, Sample};
use crate::scene::{Scene, ask};
use crate::table::{Bound, Table, median};

pub(crate) fn loads(scene: &Scene, table: &mut Table) -> Result {
    let all = [true, false]
        .into_iter()
        .flat_map(|keep_alive| [1, 16, 256].map(|connections| Load { connections, keep_alive }));
    let all: Vec<Load> = all.collect();
    let mut samples: Vec<Vec<(Sample, Sample)>> = all.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        // Anew each time: where the kernel happens to put a process and its memory is worth a tenth either way.
        let daemon = scene.daemon(&format!("loads-{round}"))?;
        let (floor_socket, floor) = scene.floor(&daemon.token()?, round)?;
        for (load, samples) in all.iter().zip(&mut samples) {
            let theirs = load.run(&floor_socket, &floor, TURN)?;
            let ours = load.run(&daemon.socket, &daemon.running, TURN)?;
            samples.push((ours, theirs));
        }
    }
    for (load, samples) in all.iter().zip(&samples) {
        let kind = if load.keep_alive { "keep-alive" } else { "connection per request" };
        let name = format!("{kind}, {}", load.connections);
        let (rate, our_rate, _) = ratio(samples, |sample| sample.per_second);
        let shown = format!("{rate:.2} ({:.0} k/s)", our_rate / 1e3);
        let figure = format!("requests/s / bare hyper: {name}");
        table.add(figure, rate, shown, Bound::AtLeast(0.9), Bound::AtLeast(1.0));
        let (cpu, our_cpu, _) = ratio(samples, |sample| sample.cpu.as_secs_f64());
        let shown = format!("{cpu:.2} ({:.1} us)", our_cpu * 1e6);
        let figure = format!("CPU a request / bare hyper: {name}");
        table.add(figure, cpu, shown, Bound::AtMost(1.15), Bound::AtMost(1.0));
        let (p99, our_p99, _) = ratio(samples, |sample| sample.p99.as_secs_f64());
        let shown = format!("{p99:.2} ({:.0} us)", our_p99 * 1e6);
        table.add(format!("p99 / bare hyper: {name}"), p99, shown, Bound::AtMost(1.15), Bound::AtMost(1.0));
    }
    Ok(())
}

/// Ratio of the medians, and both medians: ours, theirs.
fn ratio(samples: &[(Sample, Sample)], of: impl Fn(&Sample) -> f64) -> (f64, f64, f64) {
    let ours = median(&mut samples.iter().map(|(ours, _)| of(ours)).collect::<Vec<_>>());
    let theirs = median(&mut samples.iter().map(|(_, theirs)| of(theirs)).collect::<Vec<_>>());
    (ours / theirs, ours, theirs)
}

/// Two daemons alike, but for one the exchange hangs.
pub(crate) fn hang(scene: &Scene, table: &mut Table) -> Result {
    let (idle, hung) = (scene.daemon("idle")?, scene.daemon("hung")?);
    idle.token()?;
    let token: serde_json::Value = serde_json::from_slice(&hung.token()?)?;
    let token = token["access_token"].as_str().unwrap_or_default();
    scene.control("POST", "/sandbox/faults", r#"{"exchange":{"fault":"hang"}}"#)?;
    let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    let report = serde_json::json!({ "token_sha256": hash }).to_string();
    ask(&hung.socket, "POST", "/v1/rejected", report.as_bytes())?;
    // A forced renewal waits some seconds after the one before. Then it hangs, and this joins it.
    std::thread::sleep(Duration::from_secs(7));
    let socket = hung.socket.clone();
    let refresh = std::thread::spawn(move || ask(&socket, "POST", "/v1/refresh?wait=60", b"").is_ok());
    std::thread::sleep(Duration::from_millis(100));
    let load = Load { connections: 1, keep_alive: true };
    let mut samples = Vec::new();
    for _ in 0..ROUNDS * 2 {
        let quiet = load.run(&idle.socket, &idle.running, TURN / 2)?;
        samples.push((load.run(&hung.socket, &hung.running, TURN / 2)?, quiet));
    }
    anyhow::ensure!(!refresh.is_finished(), "the renewal did not hang");
    scene.control("POST", "/sandbox/faults", "{}")?;
    let (ratio, ours, _) = ratio(&samples, |sample| sample.p50.as_secs_f64());
    let shown = format!("{ratio:.2} ({:.1} us)", ours * 1e6);
    let figure = "cached read while a renewal hangs / idle, median";
    table.add(figure, ratio, shown, Bound::AtMost(1.2), Bound::AtMost(1.0));
    drop((idle, hung));
    let _ = refresh.join();
    Ok(())
}

const ROUNDS: usize = 7;
const TURN: Duration = Duration::from_millis(500);
