//! One record. It names the token by a hash under a salt that nobody has, and never holds it.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::process::Facts;
use crate::proxy::Total;

#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    /// The route, `sdk-files`, or `proxy`.
    pub(super) route: &'static str,
    pub(super) profile: Arc<str>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) pid: Option<u32>,
    pub(super) facts: Option<Arc<Facts>>,
    /// The process that a job is, if it is not the caller.
    pub(super) process: Option<u32>,
    /// For the SDK files: how many processes read them.
    pub(super) jobs: Option<usize>,
    pub(super) token: Option<String>,
    /// For a job of the proxy that is over: what went through.
    pub(super) total: Option<Total>,
}

impl Record {
    /// Its fields by name, without those of which nothing is known.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let facts = self.facts.as_deref();
        let fact = |of: fn(&Facts) -> &Option<String>| facts.and_then(|facts| of(facts).clone());
        let job = facts.and_then(|facts| facts.job.clone());
        let number = |number: Option<u32>| number.map(Value::from);
        let text = |text: Option<String>| text.map(Value::from);
        let fields = [
            ("time", Some(format!("{:.6}", self.time).into())),
            ("route", Some(self.route.into())),
            ("profile", Some((*self.profile).into())),
            ("uid", number(self.uid)),
            ("gid", number(self.gid)),
            ("pid", number(self.pid)),
            ("command", text(fact(|facts| &facts.command))),
            ("executable", text(fact(|facts| &facts.executable))),
            ("cgroup", text(fact(|facts| &facts.cgroup))),
            ("container", text(fact(|facts| &facts.container))),
            ("scheduler", text(job.as_ref().map(|job| job.scheduler.clone()))),
            ("job", text(job.as_ref().map(|job| job.id.clone()))),
            ("step", text(job.and_then(|job| job.step))),
            ("job_pid", number(self.process)),
            ("jobs", self.jobs.map(Value::from)),
            ("token", text(self.token.clone())),
            ("requests", self.total.map(|total| total.requests.into())),
            ("bytes_sent", self.total.map(|total| total.sent.into())),
            ("bytes_received", self.total.map(|total| total.received.into())),
            ("daemon", Some(std::process::id().into())),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}
