//! `/metrics`, in Prometheus' text format. Keepers are read when it is asked for; only requests and
//! connections are counted as they come. No label holds anything secret.

use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use super::answer::{self, Answer};
use super::audit;
use super::directory::Directory;
use crate::api;
use crate::clock::Now;
use crate::keeper::Keeper;
use crate::proxy::Proxy;
use crate::token::Expires;

#[derive(Default)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    connections: AtomicI64,
    /// Requests under way.
    waiting: AtomicI64,
    /// Whoever shows the metrics elsewhere is told of changes.
    pub(super) changed: Notify,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeptLabels {
    profile: String,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProfileLabels {
    profile: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BytesLabels {
    profile: String,
    direction: &'static str,
}

impl Metrics {
    pub(super) fn count(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.changed.notify_one();
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn connection(&self) -> impl Drop + '_ {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Open(&self.connections)
    }

    /// Counts a request as under way until the guard is dropped.
    pub(super) fn request(&self) -> impl Drop + '_ {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Open(&self.waiting)
    }

    pub(super) fn waiting(&self) -> i64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn render(
        &self,
        directory: &Directory,
        audit: &audit::Counts,
        proxy: &Proxy,
        now: Now,
    ) -> Answer {
        answer::text(OPEN_METRICS, self.text(directory, audit, proxy, now))
    }

    /// In the OpenMetrics format.
    pub(super) fn text(
        &self,
        directory: &Directory,
        audit: &audit::Counts,
        proxy: &Proxy,
        now: Now,
    ) -> String {
        let mut registry = Registry::with_prefix("wandb_cred");
        registry.register("requests", "Requests answered on the socket", self.requests.clone());
        let connections = Gauge::<i64>::default();
        connections.set(self.connections.load(Ordering::Relaxed));
        registry.register("connections", "Open connections on the socket", connections);

        let usable = Family::<KeptLabels, Gauge>::default();
        let remaining = Family::<KeptLabels, Gauge>::default();
        let failures = Family::<KeptLabels, Gauge>::default();
        let attempts = Family::<KeptLabels, Counter>::default();
        let exchanges = Family::<ProfileLabels, Counter>::default();
        let jobs = Family::<ProfileLabels, Gauge>::default();
        let expiry = Family::<KeptLabels, Gauge>::default();
        let kept = Kept { usable, remaining, expiry, failures, attempts };
        for (name, member) in &directory.members {
            let profile = &member.profile;
            if let Some(identity) = &profile.identity {
                kept.read(name, "identity", identity, now);
            }
            kept.read(name, "access", &profile.access, now);
            let labels = ProfileLabels { profile: name.clone() };
            exchanges.get_or_create(&labels).inc_by(profile.exchanges());
            jobs.get_or_create(&labels).set(i64::try_from(profile.demand.jobs()).unwrap_or(i64::MAX));
        }
        registry.register("usable", "1 if there is a token that has not expired", kept.usable);
        registry.register("remaining_seconds", "Life left of the token", kept.remaining);
        registry.register("expiry_timestamp_seconds", "When the token expires", kept.expiry);
        registry.register("failures", "Failed attempts since the last success", kept.failures);
        registry.register("attempts", "Renewals attempted", kept.attempts);
        registry.register("exchanges", "Exchanges made at W&B", exchanges);
        for (name, help, count) in [
            ("audit_records", "Records written to the audit log", &audit.written),
            ("audit_lost", "Records that the audit log could not take", &audit.lost),
        ] {
            let counter = Counter::<u64>::default();
            counter.inc_by(count.load(Ordering::Relaxed));
            registry.register(name, help, counter);
        }
        registry.register("jobs", "Running processes that use the SDK files or the proxy", jobs);
        // Absent where nobody has asked for the proxy.
        if proxy.port().is_some() {
            let requests = Family::<ProfileLabels, Counter>::default();
            let replays = Family::<ProfileLabels, Counter>::default();
            let bytes = Family::<BytesLabels, Counter>::default();
            for (profile, total) in proxy.totals() {
                let labels = ProfileLabels { profile: profile.clone() };
                requests.get_or_create(&labels).inc_by(total.requests);
                replays.get_or_create(&labels).inc_by(total.replays);
                for (direction, count) in [("sent", total.sent), ("received", total.received)] {
                    let labels = BytesLabels { profile: profile.clone(), direction };
                    bytes.get_or_create(&labels).inc_by(count);
                }
            }
            registry.register("proxy_requests", "Requests through the proxy", requests);
            registry.register("proxy_replays", "Requests sent again with a new token", replays);
            registry.register("proxy_bytes", "Bytes of bodies through the proxy", bytes);
        }

        let mut body = String::new();
        text::encode(&mut body, &registry).expect("writing to memory");
        body
    }
}

pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Kept {
    usable: Family<KeptLabels, Gauge>,
    remaining: Family<KeptLabels, Gauge>,
    expiry: Family<KeptLabels, Gauge>,
    failures: Family<KeptLabels, Gauge>,
    attempts: Family<KeptLabels, Counter>,
}

impl Kept {
    fn read<T: Expires>(&self, profile: &str, stage: &'static str, keeper: &Keeper<T>, now: Now) {
        let labels = KeptLabels { profile: profile.to_owned(), stage };
        keeper.read(|snapshot| {
            let state = snapshot.state(now);
            let usable = matches!(state, api::State::Fresh | api::State::Stale);
            let left = snapshot.token.as_ref().map_or(0, |token| token.expiry().remaining(now).as_secs());
            self.usable.get_or_create(&labels).set(usable.into());
            self.remaining.get_or_create(&labels).set(i64::try_from(left).unwrap_or(i64::MAX));
            if let Some(token) = &snapshot.token {
                self.expiry.get_or_create(&labels).set(token.expiry().wall().as_second());
            }
            self.failures.get_or_create(&labels).set(snapshot.failures.into());
            self.attempts.get_or_create(&labels).inc_by(snapshot.attempts);
        });
    }
}

struct Open<'m>(&'m AtomicI64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
