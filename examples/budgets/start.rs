//! How soon a daemon answers after it was started.

use crate::Result;
use crate::setup::Setup;
use crate::table::{Bound, Table, median};

pub(crate) fn time(setup: &Setup, table: &mut Table) -> Result {
    let mut times = Vec::new();
    for round in 0..STARTS {
        let daemon = setup.daemon(&format!("start-{round}"))?;
        times.push(daemon.started_in.as_secs_f64() * 1e3);
    }
    let middle = median(&mut times);
    table.add("start to first answer, ms", Bound::AtMost(30.0), middle, format!("{middle:.1}"));
    Ok(())
}

const STARTS: usize = 21;
