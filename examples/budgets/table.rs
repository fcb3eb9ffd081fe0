//! What was measured, beside its budget.

use std::fmt;

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    figure: String,
    budget: Option<Bound>,
    shown: String,
    missed: bool,
    /// Repeats exactly, so that a miss is a defect and not a busy machine.
    exact: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl Table {
    /// A figure that varies from run to run.
    pub(crate) fn add(
        &mut self,
        figure: impl Into<String>,
        budget: Bound,
        measured: f64,
        shown: impl Into<String>,
    ) {
        let missed = !budget.is_met(measured);
        self.push(Row {
            figure: figure.into(),
            budget: Some(budget),
            shown: shown.into(),
            missed,
            exact: false,
        });
    }

    /// A count that repeats exactly.
    pub(crate) fn add_exact(&mut self, figure: impl Into<String>, most: u64, measured: u64) {
        let (budget, missed) = (Some(Bound::AtMost(most as f64)), measured > most);
        self.push(Row { figure: figure.into(), budget, shown: measured.to_string(), missed, exact: true });
    }

    /// Something that could not be measured here, and why.
    pub(crate) fn skip(&mut self, figure: impl Into<String>, why: &anyhow::Error) {
        let shown = format!("skipped: {why:#}");
        self.push(Row { figure: figure.into(), budget: None, shown, missed: false, exact: false });
    }

    fn push(&mut self, row: Row) {
        // At once too: the whole run takes minutes.
        eprintln!("{}: {}", row.figure, row.shown);
        self.0.push(row);
    }

    pub(crate) fn any_exact_missed(&self) -> bool {
        self.0.iter().any(|row| row.exact && row.missed)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | budget | measured |\n|---|---|---|")?;
        for Row { figure, budget, shown, missed, .. } in &self.0 {
            let budget = budget.map_or_else(|| "-".to_owned(), |bound| bound.to_string());
            let verdict = if *missed { " **MISSED**" } else { "" };
            writeln!(f, "| {figure} | {budget} | {shown}{verdict} |")?;
        }
        Ok(())
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
        }
    }
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
