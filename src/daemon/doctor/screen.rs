//! Where the doctor's findings go: on a terminal each as soon as it is there, elsewhere all at the end.

use std::sync::{Arc, Mutex};

use crate::api::Finding;
use crate::doctor::text::{Examination, Printer};
use crate::doctor::{Live, Report};
use crate::env::Env;
use crate::output::{self, Waiting};

pub(super) struct Screen {
    json: bool,
    /// Absent where nobody looks while it runs.
    terminal: Option<Arc<Mutex<Terminal>>>,
    colour: bool,
    verbose: bool,
}

struct Terminal {
    printer: Printer,
    /// The line that says what is looked at now, below what was found.
    waiting: Option<Waiting>,
}

impl Screen {
    pub(super) fn new(env: &Env, json: bool, verbose: bool) -> Self {
        let colour = output::Style::detect(env).has_colour();
        let printer = Printer::new(colour, verbose, output::terminal_width());
        let live = !json && output::is_terminal();
        let terminal = live.then(|| Arc::new(Mutex::new(Terminal { printer, waiting: None })));
        Self { json, terminal, colour, verbose }
    }

    /// A report of which each finding is shown when it is there, under this heading.
    pub(super) fn report(&self, heading: String) -> Report {
        let Some(terminal) = &self.terminal else { return Report::new(heading, None) };
        let mut held = terminal.lock().expect("no holder panics");
        held.printer.heading(heading.clone());
        held.wait_for(&heading);
        Report::new(heading, Some(Box::new(OnTerminal(Arc::clone(terminal)))))
    }

    pub(super) fn end(&self, examination: &Examination) -> Result<(), output::Error> {
        if self.json {
            return output::print(&examination.json());
        }
        if let Some(terminal) = &self.terminal {
            let mut terminal = terminal.lock().expect("no holder panics");
            terminal.waiting = None;
            return output::print(&terminal.printer.summary(examination));
        }
        let mut printer = Printer::new(self.colour, self.verbose, None);
        let mut text = String::new();
        for part in &examination.parts {
            printer.heading(part.heading.clone());
            text.extend(part.findings.iter().map(|finding| printer.finding(finding)));
        }
        output::print(&(text + &printer.summary(examination)))
    }
}

impl Terminal {
    fn wait_for(&mut self, what: &str) {
        // The old line must be gone before there is another.
        self.waiting = None;
        let text = format!("checking {what} (Ctrl-C ends)");
        self.waiting = Some(Waiting::begin(move || text.clone()));
    }
}

struct OnTerminal(Arc<Mutex<Terminal>>);

impl Live for OnTerminal {
    fn begin(&mut self, what: &str) {
        self.0.lock().expect("no holder panics").wait_for(what);
    }

    fn found(&mut self, finding: &Finding) {
        let mut terminal = self.0.lock().expect("no holder panics");
        let text = terminal.printer.finding(finding);
        if !text.is_empty() {
            terminal.waiting = None;
            // A reader that goes away is met at the end.
            let _ = output::print(&text);
        }
    }
}
