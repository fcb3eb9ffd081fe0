//! The findings of all steps, in order, as data and as text, without anything that looks like a token.

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
const NAMES: [&str; 21] = [
    "configuration",
    "folders",
    "daemon",
    "service",
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

#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
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

    /// The first of `steps` that failed.
    pub fn failed(&self, steps: &[Step]) -> Option<&'static str> {
        let failed = |step: &&Step| {
            self.findings.iter().any(|one| one.step == step.name() && one.verdict == Verdict::Fail)
        };
        steps.iter().find(failed).map(|step| step.name())
    }

    pub(super) fn count(&self, step: Step) -> usize {
        self.findings.iter().filter(|finding| finding.step == step.name()).count()
    }

    /// W&B itself accepted the token: a check of it that failed here becomes a warning.
    pub fn downgrade(&mut self, steps: &[Step]) {
        for finding in &mut self.findings {
            if finding.verdict == Verdict::Fail && steps.iter().any(|step| step.name() == finding.step) {
                finding.verdict = Verdict::Warn;
                finding.exit = None;
                finding.found.push_str(" (W&B accepts the token anyway)");
            }
        }
    }

    pub fn finish(mut self, profile: &str) -> api::Doctor {
        let position = |finding: &Finding| NAMES.iter().position(|name| *name == finding.step);
        self.findings.sort_by_key(|finding| position(finding).unwrap_or(NAMES.len()));
        let verdict = self.findings.iter().map(|finding| finding.verdict).max();
        // What a person must change is more urgent than what may pass by itself.
        let urgency = |exit: &u8| BY_URGENCY.iter().position(|known| *known as u8 == *exit);
        let exit = self.findings.iter().filter_map(|finding| finding.exit).max_by_key(urgency);
        api::Doctor {
            profile: profile.to_owned(),
            verdict: verdict.unwrap_or(Verdict::Ok).max(Verdict::Ok),
            exit: exit.unwrap_or(0),
            findings: self.findings,
            environment: BTreeMap::new(),
        }
    }
}

/// From the least to the most urgent.
const BY_URGENCY: [Exit; 4] = [Exit::TryLater, Exit::Unavailable, Exit::NeedsLogin, Exit::Configuration];

/// For people: a line per finding, remedies below, the verdict at the end; unless `verbose`, only of what is wrong.
pub fn text(doctor: &api::Doctor, about: &str, colour: bool, verbose: bool) -> String {
    let mut text = format!("wandb-cred doctor {}, {about}\n\n", env!("CARGO_PKG_VERSION"));
    let wrong = |finding: &&Finding| matches!(finding.verdict, Verdict::Warn | Verdict::Fail);
    for finding in doctor.findings.iter().filter(|finding| verbose || wrong(finding)) {
        let (mark, code) = match finding.verdict {
            Verdict::Ok => ("ok  ", "32"),
            Verdict::Warn => ("warn", "33"),
            Verdict::Fail => ("FAIL", "31"),
            Verdict::Skipped => ("-   ", "2"),
        };
        let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
        let lead = format!("{mark} {:<16} ", finding.step);
        text += &wrap(&lead, &finding.found);
        if let Some(remedy) = &finding.remedy {
            text += &wrap(&format!("{:INDENT$}remedy: ", ""), remedy);
        }
    }
    if verbose || doctor.findings.iter().any(|finding| wrong(&finding)) {
        text.push('\n');
    }
    text += &summary(doctor);
    if !verbose {
        let fine = doctor.findings.iter().filter(|finding| finding.verdict == Verdict::Ok).count();
        text += &format!("; {fine} checks were fine (--verbose shows them)");
    }
    text.push('\n');
    text
}

fn summary(doctor: &api::Doctor) -> String {
    let named = |verdict| {
        let mut names: Vec<&str> = Vec::new();
        for finding in doctor.findings.iter().filter(|finding| finding.verdict == verdict) {
            if !names.contains(&finding.step.as_str()) {
                names.push(&finding.step);
            }
        }
        names
    };
    let (fails, warns) = (named(Verdict::Fail), named(Verdict::Warn));
    match (fails.as_slice(), warns.as_slice()) {
        ([], []) => format!("verdict: healthy; profile {} can get tokens", doctor.profile),
        ([], warns) => format!("verdict: healthy, with warnings on {}", warns.join(", ")),
        (fails, _) => format!("verdict: NOT healthy; fix {} (exit code {})", fails.join(", "), doctor.exit),
    }
}

/// `words` after `lead` in lines of [`WIDTH`], indented to the end of `lead`. Line breaks are kept.
fn wrap(lead: &str, words: &str) -> String {
    let mut text = lead.to_owned();
    let mut column = INDENT + if lead.ends_with("remedy: ") { 8 } else { 0 };
    let indent = " ".repeat(column);
    let start = column;
    for (number, line) in words.lines().enumerate() {
        if number > 0 {
            text = format!("{}\n{indent}", text.trim_end());
            column = start;
        }
        for word in line.split(' ') {
            let length = word.chars().count();
            if column > start && column + length > WIDTH {
                text = format!("{}\n{indent}", text.trim_end());
                column = start;
            }
            text += word;
            text.push(' ');
            column += length + 1;
        }
    }
    format!("{}\n", text.trim_end())
}

/// The width of the mark and the step's name.
const INDENT: usize = 22;
const WIDTH: usize = 110;

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
        let text = text(&report.finish("p"), "p", false, false);
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
