//! What was measured, beside what it may be.

use std::fmt;

use crate::Result;
use crate::scene::Scene;

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    figure: String,
    measured: f64,
    shown: String,
    budget: Option<Bound>,
    stretch: Option<Bound>,
    /// Repeats exactly, so that a miss is a defect and not the machine's mood.
    exact: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn met(self, value: f64) -> bool {
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
        measured: f64,
        shown: impl Into<String>,
        budget: impl Into<Option<Bound>>,
        stretch: impl Into<Option<Bound>>,
    ) {
        self.push(figure.into(), measured, shown.into(), budget.into(), stretch.into(), false);
    }

    /// A figure that repeats exactly.
    pub(crate) fn exact(
        &mut self,
        figure: impl Into<String>,
        measured: f64,
        shown: impl Into<String>,
        budget: Bound,
        stretch: impl Into<Option<Bound>>,
    ) {
        self.push(figure.into(), measured, shown.into(), Some(budget), stretch.into(), true);
    }

    /// Something that could not be measured here, and why.
    pub(crate) fn skip(&mut self, figure: impl Into<String>, why: impl Into<String>) {
        self.push(figure.into(), f64::NAN, format!("skipped: {}", why.into()), None, None, false);
    }

    fn push(
        &mut self,
        figure: String,
        measured: f64,
        shown: String,
        budget: Option<Bound>,
        stretch: Option<Bound>,
        exact: bool,
    ) {
        // Said at once too: the whole takes minutes.
        eprintln!("{figure}: {shown}");
        self.0.push(Row { figure, measured, shown, budget, stretch, exact });
    }

    /// The packaged programs; in a short run only the command is one.
    pub(crate) fn sizes(&mut self, scene: &Scene, short: bool) -> Result {
        let packaged = [("wandb-cred", 1.5, 1.1), ("wandb-credd", 6.0, 4.0)];
        for (name, budget, stretch) in packaged.into_iter().take(if short { 1 } else { 2 }) {
            let megabytes = scene.program(name).metadata()?.len() as f64 / 1e6;
            let shown = format!("{megabytes:.2} MB");
            let figure = format!("size of {name}, packaged, MB");
            self.exact(figure, megabytes, shown, Bound::AtMost(budget), Bound::AtMost(stretch));
        }
        Ok(())
    }

    pub(crate) fn any_exact_missed(&self) -> bool {
        self.0.iter().any(|row| row.exact && row.missed())
    }
}

impl Row {
    fn missed(&self) -> bool {
        self.budget.is_some_and(|budget| !budget.met(self.measured))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | budget | stretch | measured | verdict |\n|---|---|---|---|---|")?;
        for row in &self.0 {
            let verdict = match (row.budget, row.stretch) {
                (None, _) => "-",
                _ if row.missed() => "MISSED",
                (_, Some(stretch)) if stretch.met(row.measured) => "stretch met",
                _ => "met",
            };
            let bound =
                |bound: Option<Bound>| bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string());
            let (budget, stretch) = (bound(row.budget), bound(row.stretch));
            writeln!(f, "| {} | {budget} | {stretch} | {} | {verdict} |", row.figure, row.shown)?;
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

/// The middle one.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
