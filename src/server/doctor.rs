//! `GET /v1/doctor`: one visit at a time, shared by all who ask within its first moments.
//!
//! A visit asks other servers, so nobody can have many by asking often; and it only reads keepers, so that
//! tokens are served meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::state::State;
use crate::api;
use crate::doctor::{self, Case, Source};
use crate::env::Env;
use crate::profile::Profile;

#[derive(Default)]
pub(super) struct Visits(Mutex<Option<Last>>);

struct Last {
    /// The very one: a reload that changes its configuration makes another.
    profile: Arc<Profile>,
    /// By the boot clock.
    began: Duration,
    findings: Arc<api::Doctor>,
}

impl Visits {
    pub(super) async fn visit(&self, state: &State, profile: &Arc<Profile>) -> Arc<api::Doctor> {
        let asked = state.clock.now().boot;
        let mut last = self.0.lock().await;
        if let Some(last) = &*last
            && Arc::ptr_eq(&last.profile, profile)
            && asked < last.began + SHARED
        {
            return Arc::clone(&last.findings);
        }
        let began = state.clock.now().boot;
        let env = Env::system();
        let case = Case {
            profile: &profile.name,
            base_url: &profile.base_url,
            audience: profile.audience.as_deref(),
            provider: profile.provider,
            env: &env,
            clock: &state.clock,
            http: &state.http,
        };
        // Boxed: every connection's task would be as large as the largest route.
        let report = Box::pin(doctor::examine(&case, &Source::Kept(Arc::clone(profile)))).await;
        let findings = Arc::new(report.finish(&profile.name));
        *last = Some(Last { profile: Arc::clone(profile), began, findings: Arc::clone(&findings) });
        findings
    }
}

/// Who asks within this time of a visit's beginning gets its findings: one visit in two seconds, however many ask.
const SHARED: Duration = Duration::from_secs(2);
