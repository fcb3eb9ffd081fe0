//! What people and programs get to read of an examination: of this machine, and of each profile.

use serde::Serialize;

use super::report::{Report, exit, verdict};
use crate::api::{Finding, Verdict};

/// All that was found.
#[derive(Default)]
pub struct Examination {
    pub parts: Vec<Part>,
}

pub struct Part {
    /// Absent for this machine.
    pub profile: Option<String>,
    pub heading: String,
    pub findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Json<'a> {
    verdict: Verdict,
    exit: u8,
    /// Those that were looked at.
    profiles: Vec<&'a str>,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Examination {
    pub fn add(&mut self, profile: Option<String>, report: Report) {
        let heading = report.heading.clone();
        let findings = report.finish(profile.as_deref().unwrap_or_default()).findings;
        self.parts.push(Part { profile, heading, findings });
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.parts.iter().flat_map(|part| &part.findings)
    }

    fn profiles(&self) -> Vec<&str> {
        self.parts.iter().filter_map(|part| part.profile.as_deref()).collect()
    }

    pub fn exit(&self) -> u8 {
        exit(self.findings())
    }

    /// For programs.
    pub fn json(&self) -> String {
        let findings = self.parts.iter().flat_map(|part| {
            let profile = part.profile.as_deref();
            part.findings.iter().map(move |finding| JsonFinding { profile, finding })
        });
        let json = Json {
            verdict: verdict(self.findings()),
            exit: self.exit(),
            profiles: self.profiles(),
            findings: findings.collect(),
        };
        serde_json::to_string_pretty(&json).expect("our own types always serialise") + "\n"
    }

    /// The last line for people.
    pub fn summary(&self, verbose: bool) -> String {
        let (fails, warns) = (self.named(Verdict::Fail), self.named(Verdict::Warn));
        let mut text = match (fails.as_slice(), warns.as_slice()) {
            ([], []) => {
                let profiles = self.profiles();
                let noun = if profiles.len() == 1 { "profile" } else { "profiles" };
                format!("verdict: healthy; {noun} {} can get tokens", profiles.join(", "))
            }
            ([], warns) => format!("verdict: healthy, with warnings on {}", warns.join(", ")),
            (fails, _) => {
                format!("verdict: NOT healthy; fix {} (exit code {})", fails.join(", "), self.exit())
            }
        };
        if !verbose {
            let fine = self.findings().filter(|finding| finding.verdict == Verdict::Ok).count();
            text += &format!("; {fine} checks were fine (--verbose shows them)");
        }
        text
    }

    /// The steps with this verdict, each once; with its profile where several were looked at.
    fn named(&self, verdict: Verdict) -> Vec<String> {
        let several = self.profiles().len() > 1;
        let mut names: Vec<String> = Vec::new();
        for part in &self.parts {
            for finding in part.findings.iter().filter(|finding| finding.verdict == verdict) {
                let name = match &part.profile {
                    Some(profile) if several => format!("{} ({profile})", finding.step),
                    _ => finding.step.clone(),
                };
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }
}

/// Findings as lines: of what is wrong, or of everything.
pub struct Printer {
    pub colour: bool,
    pub verbose: bool,
    /// Of the screen, if there is one.
    pub width: Option<usize>,
    heading: Option<String>,
    begun: bool,
}

impl Printer {
    pub fn new(colour: bool, verbose: bool, width: Option<usize>) -> Self {
        Self { colour, verbose, width, heading: None, begun: false }
    }

    /// What the next findings are about: shown with the first of them that is.
    pub fn heading(&mut self, about: String) {
        self.heading = Some(about);
    }

    /// The lines of a finding; empty for one that is not shown.
    pub fn finding(&mut self, finding: &Finding) -> String {
        let (mark, code) = match finding.verdict {
            Verdict::Ok | Verdict::Skipped if !self.verbose => return String::new(),
            Verdict::Ok => ("ok  ", "32"),
            Verdict::Skipped => ("-   ", "2"),
            Verdict::Warn => ("warn", "33"),
            Verdict::Fail => ("FAIL", "31"),
        };
        let mut text = String::new();
        if let Some(heading) = self.heading.take() {
            text += if self.begun { "\n" } else { "" };
            text += &format!("{heading}\n");
        }
        self.begun = true;
        let mark = if self.colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
        let width = self.width.unwrap_or(WIDTH).min(WIDTH);
        let indent = if width < NARROW { 2 } else { INDENT };
        if indent == INDENT {
            text += &wrap(&format!("{mark} {:<16} ", finding.step), indent, &finding.found, width);
        } else {
            text += &format!("{mark} {}\n", finding.step);
            text += &wrap("  ", indent, &finding.found, width);
        }
        if let Some(remedy) = &finding.remedy {
            text += &wrap(&format!("{:indent$}{REMEDY}", ""), indent + REMEDY.len(), remedy, width);
        }
        text
    }

    /// The last line, apart from what is above it.
    pub fn summary(&self, examination: &Examination) -> String {
        let text = wrap("", 0, &examination.summary(self.verbose), self.width.unwrap_or(usize::MAX));
        if self.begun { format!("\n{text}") } else { text }
    }
}

/// `words` after `lead` in lines of `width`, indented to `start`, where `lead` ends. Line breaks are kept.
fn wrap(lead: &str, start: usize, words: &str, width: usize) -> String {
    let mut text = lead.to_owned();
    let mut column = start;
    let indent = " ".repeat(start);
    for (number, line) in words.lines().enumerate() {
        if number > 0 {
            text = format!("{}\n{indent}", text.trim_end());
            column = start;
        }
        for word in line.split(' ') {
            let length = word.chars().count();
            if column > start && column + length > width {
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
const REMEDY: &str = "remedy: ";
const WIDTH: usize = 110;
/// A screen on which that much indentation leaves no room for words.
const NARROW: usize = 60;
