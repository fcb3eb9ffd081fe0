//! `GET /v1/doctor`: one run at a time, shared by all who ask within its first moments.
//!
//! A run asks other servers, so asking often must not cause many. It only reads the keepers, so tokens are served
//! meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::api;
use crate::doctor::{self, Context, Source};
use crate::env::Env;
use crate::profile::Profile;

/// The findings of the last run.
#[derive(Default)]
pub(super) struct DoctorCache(Mutex<Option<LastRun>>);

struct LastRun {
    /// By address: a reload that changes a profile's configuration replaces it.
    profile: Arc<Profile>,
    /// By the boot clock.
    started: Duration,
    findings: Arc<api::Doctor>,
}

impl DoctorCache {
    /// Runs the checks, unless a run that can be shared has just started.
    pub(super) async fn findings(&self, profile: &Arc<Profile>) -> Arc<api::Doctor> {
        let clock = &profile.clock;
        let asked = clock.now().boot;
        let mut last = self.0.lock().await;
        if let Some(last) = &*last
            && Arc::ptr_eq(&last.profile, profile)
            && asked < last.started + SHARED_FOR
        {
            return Arc::clone(&last.findings);
        }
        let started = clock.now().boot;
        let env = Env::system();
        let cx = Context {
            profile: &profile.name,
            base_url: &profile.base_url,
            audience: profile.audience.as_deref(),
            provider: profile.provider,
            env: &env,
            clock,
            http: &profile.http,
        };
        let (mut report, source) = (doctor::Report::default(), Source::Daemon(Arc::clone(profile)));
        // Boxed: every connection's task would be as large as the largest route.
        Box::pin(doctor::diagnose(&cx, &source, &mut report)).await;
        let environment = doctor::environment::fingerprint(&env);
        let findings = Arc::new(api::Doctor { environment, ..report.finish(&profile.name) });
        *last = Some(LastRun { profile: Arc::clone(profile), started, findings: Arc::clone(&findings) });
        findings
    }
}

/// A request that comes this soon after the start of a run gets its findings.
const SHARED_FOR: Duration = Duration::from_secs(2);
