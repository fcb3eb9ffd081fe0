//! The findings of all steps, in their order, without anything that looks like a token.

use std::collections::BTreeMap;

use crate::api::{self, Finding, Verdict};
use crate::error::Exit;
use crate::output;

/// What is checked, in the order in which it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Configuration,
    Folders,
    Daemon,
    Service,
    SignIn,
    Provider,
    Jwt,
    Lifetime,
    Clock,
    Issuer,
    Signature,
    Subject,
    StableSubject,
    Audience,
    Proxy,
    Server,
    Exchange,
    ApiCall,
    TokenLife,
    Outlook,
    LoopbackProxy,
    SdkEnvironment,
}

/// The stable names, in order.
const NAMES: [&str; 22] = [
    "configuration",
    "folders",
    "daemon",
    "service",
    "sign-in",
    "provider",
    "jwt",
    "lifetime",
    "clock",
    "issuer",
    "signature",
    "subject",
    "stable-subject",
    "audience",
    "proxy",
    "server",
    "exchange",
    "api-call",
    "token-life",
    "outlook",
    "loopback-proxy",
    "sdk-environment",
];

impl Step {
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// What is told of a report while it is made.
pub trait Live: Send {
    /// What is looked at now.
    fn begin(&mut self, what: &str);
    fn found(&mut self, finding: &Finding);
}

#[derive(Default)]
pub struct Report {
    /// What it is about.
    pub heading: String,
    findings: Vec<Finding>,
    /// How many of them, by position, were told.
    told: Vec<bool>,
    live: Option<Box<dyn Live>>,
}

impl Report {
    pub fn new(heading: String, live: Option<Box<dyn Live>>) -> Self {
        Self { heading, live, ..Self::default() }
    }

    pub fn ok(&mut self, step: Step, found: impl AsRef<str>) {
        self.add(step, Verdict::Ok, found.as_ref(), None, None);
    }

    pub fn warn(&mut self, step: Step, found: impl AsRef<str>, remedy: impl AsRef<str>) {
        self.add(step, Verdict::Warn, found.as_ref(), Some(remedy.as_ref()), None);
    }

    pub fn fail(&mut self, step: Step, exit: Exit, found: impl AsRef<str>, remedy: impl AsRef<str>) {
        self.add(step, Verdict::Fail, found.as_ref(), Some(remedy.as_ref()), Some(exit as u8));
    }

    pub fn skip(&mut self, steps: &[Step], why: &str) {
        for step in steps {
            self.add(*step, Verdict::Skipped, why, None, None);
        }
    }

    fn add(&mut self, step: Step, verdict: Verdict, found: &str, remedy: Option<&str>, exit: Option<u8>) {
        let (found, remedy) = (sanitize(found), remedy.map(sanitize));
        self.findings.push(Finding { step: step.name().to_owned(), verdict, found, remedy, exit });
    }

    pub fn append(&mut self, mut other: Self) {
        self.findings.append(&mut other.findings);
    }

    /// Adds what a daemon found.
    pub fn extend(&mut self, findings: Vec<Finding>) {
        self.findings.extend(findings);
    }

    /// Says what is looked at now. What was found so far is told, but for what may still change.
    pub fn begin(&mut self, what: &str) {
        self.tell(false);
        if let Some(live) = &mut self.live {
            live.begin(what);
        }
    }

    /// Tells whatever was not told yet.
    pub fn end(&mut self) {
        self.tell(true);
        self.live = None;
    }

    fn tell(&mut self, all: bool) {
        let Some(live) = &mut self.live else { return };
        self.told.resize(self.findings.len(), false);
        let mut next: Vec<_> = (0..self.findings.len()).filter(|at| !self.told[*at]).collect();
        next.retain(|at| all || !is_provisional(&self.findings[*at]));
        next.sort_by_key(|at| position(&self.findings[*at]));
        for at in next {
            live.found(&self.findings[at]);
            self.told[at] = true;
        }
    }

    /// The first of `steps` that failed.
    pub fn failed(&self, steps: &[Step]) -> Option<&'static str> {
        let failed = |step: &&Step| {
            self.findings.iter().any(|one| one.step == step.name() && one.verdict == Verdict::Fail)
        };
        steps.iter().find(failed).map(|step| step.name())
    }

    pub fn has_failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Fail)
    }

    pub(super) fn count(&self, step: Step) -> usize {
        self.findings.iter().filter(|finding| finding.step == step.name()).count()
    }

    /// W&B itself accepted the token: a check of it that failed here becomes a warning.
    pub(super) fn downgrade(&mut self) {
        for finding in self.findings.iter_mut().filter(|finding| is_provisional(finding)) {
            finding.verdict = Verdict::Warn;
            finding.exit = None;
            finding.found.push_str(" (W&B accepts the token anyway)");
        }
    }

    pub fn finish(mut self, profile: &str) -> api::Doctor {
        self.end();
        self.findings.sort_by_key(position);
        api::Doctor {
            profile: profile.to_owned(),
            verdict: verdict(&self.findings),
            exit: exit(&self.findings),
            findings: self.findings,
            environment: BTreeMap::new(),
        }
    }
}

/// Whether W&B's word may overrule it.
fn is_provisional(finding: &Finding) -> bool {
    finding.verdict == Verdict::Fail && PROVISIONAL.iter().any(|step| step.name() == finding.step)
}

const PROVISIONAL: [Step; 3] = [Step::Issuer, Step::Signature, Step::Subject];

fn position(finding: &Finding) -> usize {
    NAMES.iter().position(|name| *name == finding.step).unwrap_or(NAMES.len())
}

/// The worst.
pub fn verdict<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Verdict {
    findings.into_iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok).max(Verdict::Ok)
}

/// What a person must change is more urgent than what may pass by itself.
pub fn exit<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> u8 {
    let urgency = |exit: &u8| BY_URGENCY.iter().position(|known| *known as u8 == *exit);
    findings.into_iter().filter_map(|finding| finding.exit).max_by_key(urgency).unwrap_or(0)
}

/// From the least to the most urgent.
const BY_URGENCY: [Exit; 4] = [Exit::TryLater, Exit::Unavailable, Exit::NeedsLogin, Exit::Configuration];

/// Longer than any finding of ours, and shorter than what foreign text may be.
const MAX_FINDING: usize = 4096;

/// A safety net: no finding is meant to hold a token, and foreign text must not steer the terminal.
fn sanitize(text: &str) -> String {
    let clean = output::printable(text.get(..text.floor_char_boundary(MAX_FINDING)).unwrap_or(text));
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.~+/=".contains(c);
    let mut out = String::with_capacity(clean.len());
    let mut rest = clean.as_str();
    while let Some(start) = rest.find(fits) {
        let end = rest[start..].find(|c| !fits(c)).map_or(rest.len(), |length| start + length);
        let (before, word) = (&rest[..start], &rest[start..end]);
        out.push_str(before);
        let jwt = word.contains("eyJ") && word.matches('.').count() >= 2;
        out.push_str(if jwt || word.contains("wb_at_") { "[redacted]" } else { word });
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_own_name() {
        assert_eq!(Step::Configuration.name(), "configuration");
        assert_eq!(Step::Audience.name(), "audience");
        assert_eq!(Step::SdkEnvironment.name(), "sdk-environment");
        assert_eq!(Step::SdkEnvironment as usize + 1, NAMES.len());
    }

    #[test]
    fn what_looks_like_a_token_is_redacted() {
        let mut report = Report::default();
        report.warn(
            Step::Jwt,
            "it said (eyJhbGciOiJub25lIn0.e30.c2ln) and \x1b[2J",
            "not wb_at_planted, but x",
        );
        let text = format!("{:?}", report.finish("p").findings);
        assert!(!text.contains("eyJ") && !text.contains("planted") && !text.contains('\x1b'), "{text}");
        assert!(
            text.contains("it said ([redacted]) and") && text.contains("not [redacted], but x"),
            "{text}"
        );
    }

    #[test]
    fn the_worst_exit_is_what_a_person_must_change() {
        let mut report = Report::default();
        report.fail(Step::Server, Exit::TryLater, "a", "b");
        report.fail(Step::Audience, Exit::Configuration, "a", "b");
        report.ok(Step::Configuration, "fine");
        let doctor = report.finish("p");
        assert_eq!((doctor.exit, doctor.verdict), (78, Verdict::Fail));
        assert_eq!(doctor.findings[0].step, "configuration", "in the order of the path");
    }
}
