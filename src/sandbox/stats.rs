//! What the sandbox has seen, for tests to compare. Every part is bounded, and none holds a token.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::tokens::Refusal;

#[derive(Default, Serialize)]
pub(super) struct Stats {
    pub(super) mints: u64,
    pub(super) exchanges: Exchanges,
    /// Exchanges made by anyone but wandb-cred: by the SDK on its own.
    pub(super) sdk_exchanges: u64,
    /// Redirects that a client should not have followed.
    pub(super) redirects_followed: u64,
    pub(super) auth_failures: Counts,
    /// GraphQL requests by operation.
    pub(super) graphql: Counts,
    /// GraphQL operations that the sandbox does not know.
    pub(super) graphql_unknown: Counts,
    pub(super) runs: BTreeMap<String, Run>,
    /// By a signed address, or by an access token.
    pub(super) artifact_downloads: Counts,
    pub(super) weave: Weave,
}

#[derive(Default, Serialize)]
pub(super) struct Exchanges {
    total: u64,
    by_user_agent: Counts,
    by_outcome: Counts,
}

/// A counter for each name. After [`MAX_NAMES`] names, new ones share a counter.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub(super) struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(super) fn add(&mut self, name: &str) {
        let name =
            if self.0.len() < MAX_NAMES || self.0.contains_key(name) { clip(name) } else { "(others)" };
        *self.0.entry(name.to_owned()).or_default() += 1;
    }
}

/// One run, by `entity/project/id`.
#[derive(Default, Serialize)]
pub(super) struct Run {
    pub(super) history_rows: usize,
    /// How many rows below the highest are missing.
    pub(super) history_gaps: usize,
    pub(super) complete: bool,
    pub(super) exit_code: Option<i64>,
    /// Bytes of each uploaded file.
    pub(super) files: BTreeMap<String, u64>,
    /// Serial numbers of the access tokens that its `file_stream` requests used, in order.
    pub(super) access_tokens: Vec<u64>,
    #[serde(skip)]
    pub(super) rows: Vec<Option<String>>,
}

#[derive(Default, Serialize)]
pub(super) struct Weave {
    pub(super) requests: Counts,
    pub(super) calls_started: u64,
    pub(super) calls_ended: u64,
    pub(super) ops: Counts,
}

impl Stats {
    pub(super) fn exchange(&mut self, user_agent: &str, outcome: &str) {
        self.exchanges.total += 1;
        self.exchanges.by_user_agent.add(user_agent);
        self.exchanges.by_outcome.add(outcome);
        if !user_agent.starts_with(OUR_USER_AGENT) {
            self.sdk_exchanges += 1;
        }
    }

    pub(super) fn refused(&mut self, why: Refusal) {
        self.auth_failures.add(why.name());
    }

    /// The run, added if it is new; `None` if there are too many.
    pub(super) fn run(&mut self, name: &str) -> Option<&mut Run> {
        if !self.runs.contains_key(name) {
            if self.runs.len() >= MAX_RUNS || name.len() > MAX_NAME {
                return None;
            }
            self.runs.insert(name.to_owned(), Run::default());
        }
        self.runs.get_mut(name)
    }

    pub(super) fn to_json(&self, (issued, used): (u64, u64)) -> Value {
        let mut value = serde_json::to_value(self).expect("counters are plain JSON");
        value["access_tokens"] = json!({ "issued": issued, "used": used });
        value
    }
}

impl Run {
    /// Stores `rows` at `offset`. A row that is sent again replaces the first one.
    pub(super) fn history(&mut self, offset: usize, rows: impl Iterator<Item = String>) {
        for (index, row) in rows.enumerate() {
            let index = offset.saturating_add(index);
            if index >= MAX_ROWS || row.len() > MAX_ROW {
                return;
            }
            if index >= self.rows.len() {
                self.rows.resize(index + 1, None);
            }
            self.rows[index] = Some(row);
        }
        self.history_rows = self.rows.iter().flatten().count();
        self.history_gaps = self.rows.len() - self.history_rows;
    }

    pub(super) fn token(&mut self, serial: u64) {
        if !self.access_tokens.contains(&serial) && self.access_tokens.len() < MAX_NAMES {
            self.access_tokens.push(serial);
        }
    }
}

/// At most [`MAX_NAME`] bytes of `name`.
fn clip(name: &str) -> &str {
    let end = name.char_indices().map(|(at, _)| at).find(|at| *at >= MAX_NAME);
    &name[..end.unwrap_or(name.len())]
}

/// The start of our own user agent.
const OUR_USER_AGENT: &str = "wandb-cred/";

const MAX_NAMES: usize = 1_000;
const MAX_NAME: usize = 300;
const MAX_RUNS: usize = 1_000;
const MAX_ROWS: usize = 100_000;
const MAX_ROW: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_by_another_program_counts_as_the_sdks() {
        let mut stats = Stats::default();
        stats.exchange("wandb-cred/0.1.0", "ok");
        assert_eq!(stats.sdk_exchanges, 0);
        stats.exchange("Go-http-client/1.1", "ok");
        stats.exchange("", "ok");
        assert_eq!((stats.sdk_exchanges, stats.exchanges.total), (2, 3));
    }

    #[test]
    fn a_row_sent_twice_counts_once_and_a_missing_row_is_a_gap() {
        let mut run = Run::default();
        let row = |text: &str| text.to_owned();
        run.history(0, [row("a"), row("b")].into_iter());
        run.history(1, [row("b")].into_iter());
        assert_eq!((run.history_rows, run.history_gaps), (2, 0));
        run.history(3, [row("d")].into_iter());
        assert_eq!((run.history_rows, run.history_gaps), (3, 1));
    }
}
