//! The daemon's throughput against plain hyper servers, and its speed while a renewal hangs against an idle one.

use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::baseline::Baseline;
use crate::load::{Load, Sample};
use crate::setup::{Setup, ask, until};
use crate::table::{Bound, Table, median};

pub(crate) fn throughput(setup: &Setup, table: &mut Table) -> Result {
    let mut rates: Vec<Rates> = Vec::new();
    for keep_alive in [true, false] {
        for connections in CONNECTIONS {
            rates.push(Rates { load: Load { connections, keep_alive }, ..Rates::default() });
        }
    }
    for round in 0..ROUNDS {
        // New processes each round: where the kernel happens to put one and its memory is worth a tenth either way.
        let daemon = setup.daemon(&format!("throughput-{round}"))?;
        let token = daemon.token()?;
        let (limited, _limited) = setup.baseline(Baseline::Limited, &token, round)?;
        let (bare, _bare) = setup.baseline(Baseline::Bare, &token, round)?;
        for rates in &mut rates {
            rates.limited.push(rates.load.run(&limited, TURN)?.per_second);
            rates.daemon.push(rates.load.run(&daemon.socket, TURN)?.per_second);
            rates.bare.push(rates.load.run(&bare, TURN)?.per_second);
        }
    }
    for rates in rates.chunks_mut(CONNECTIONS.len()) {
        let kind = if rates[0].load.keep_alive { "keep-alive" } else { "a connection per request" };
        let clients = CONNECTIONS.map(|count| count.to_string()).join(" / ");
        let limited = |rates: &mut Rates| median(&mut rates.limited);
        let figure = format!("requests/s / hyper with the same limits, {kind}, {clients} clients");
        add_ratios(table, figure, Bound::AtLeast(0.85), rates, limited);
        let bare = |rates: &mut Rates| median(&mut rates.bare);
        let figure = format!("requests/s / bare hyper, {kind}, {clients} clients");
        add_ratios(table, figure, Bound::AtLeast(0.7), rates, bare);
    }
    Ok(())
}

/// Requests per second under one load, a figure per round.
#[derive(Default)]
struct Rates {
    load: Load,
    daemon: Vec<f64>,
    limited: Vec<f64>,
    bare: Vec<f64>,
}

/// A row of several ratios, judged by the worst.
fn add_ratios(
    table: &mut Table,
    figure: String,
    bound: Bound,
    rates: &mut [Rates],
    baseline: impl Fn(&mut Rates) -> f64,
) {
    let (mut worst, mut ratios, mut absolute) = (f64::INFINITY, Vec::new(), String::new());
    for rates in rates {
        let ours = median(&mut rates.daemon);
        let ratio = ours / baseline(rates);
        worst = worst.min(ratio);
        ratios.push(format!("{ratio:.2}"));
        let _ = write!(absolute, "{}{:.0}", if absolute.is_empty() { "" } else { " / " }, ours / 1e3);
    }
    table.add(figure, bound, worst, format!("{} ({absolute} k/s)", ratios.join(" / ")));
}

/// Two equal daemons, except that the exchange of one hangs.
pub(crate) fn hang(setup: &Setup, table: &mut Table) -> Result {
    let (idle, hung) = (setup.daemon("not-hung")?, setup.daemon("hung")?);
    idle.token()?;
    let token: serde_json::Value = serde_json::from_slice(&hung.token()?)?;
    let token = token["access_token"].as_str().unwrap_or_default();
    let before = setup.exchanges()?;
    setup.control("POST", "/sandbox/faults", r#"{"exchange":{"fault":"hang"}}"#)?;
    let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    let report = serde_json::json!({ "token_sha256": hash }).to_string();
    ask(&hung.socket, "POST", "/v1/rejected", report.as_bytes())?;
    until("the renewal hangs", || setup.exchanges().is_ok_and(|exchanges| exchanges == before + 1))?;

    let load = Load { connections: 1, keep_alive: true };
    let (mut during, mut beside) = (Vec::new(), Vec::new());
    let microseconds = |sample: Sample| sample.median.as_secs_f64() * 1e6;
    for _ in 0..ROUNDS * 2 {
        beside.push(microseconds(load.run(&idle.socket, TURN / 2)?));
        during.push(microseconds(load.run(&hung.socket, TURN / 2)?));
    }
    anyhow::ensure!(setup.exchanges()? == before + 1, "the renewal did not hang all the time");
    setup.control("POST", "/sandbox/faults", "{}")?;
    let (during, beside) = (median(&mut during), median(&mut beside));
    let ratio = during / beside;
    let shown = format!("{ratio:.2} ({during:.1} / {beside:.1} us)");
    table.add("cached read while a renewal hangs / idle", Bound::AtMost(1.2), ratio, shown);
    Ok(())
}

const CONNECTIONS: [usize; 3] = [1, 16, 256];
const ROUNDS: usize = 7;
const TURN: Duration = Duration::from_millis(500);
