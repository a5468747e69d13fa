//! What a run prints: a line for each case, then what failed and the history that shows it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::runner::{Event, Finished, Outcome};

/// Prints as cases begin and end. On a terminal the last line shows what is running.
#[derive(Debug)]
pub struct Printer {
    state: Mutex<State>,
    total: usize,
    terminal: bool,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<String>,
    done: usize,
}

/// How many cases came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that were not run.
    pub ignored: usize,
}

impl Printer {
    /// For so many cases.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self {
            state: Mutex::default(),
            total,
            terminal: std::io::stdout().is_terminal(),
        }
    }

    /// Prints what has happened.
    pub fn print(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if self.terminal {
            text.push_str("\r\x1b[K");
        }
        match event {
            Event::Begins(case) => state.running.push(case.name().to_owned()),
            Event::Ends(case, finished) => {
                state.done += 1;
                state.running.retain(|name| name != case.name());
                text.push_str(&line(finished));
                text.push('\n');
            }
        }
        if self.terminal && !state.running.is_empty() {
            let running = state.running.join(", ");
            let shown: String = running.chars().take(90).collect();
            let _ = write!(text, "{} of {}: {shown}", state.done, self.total);
        }
        let mut out = std::io::stdout().lock();
        // A reader that has gone wants no report; the exit status still tells.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

fn line(finished: &Finished) -> String {
    let Finished { case, took, .. } = finished;
    match &finished.outcome {
        Outcome::Passed => format!("ok      {:>6.2} s  {case}", took.as_secs_f64()),
        Outcome::Failed { failure, .. } => {
            let first = failure.lines().next().unwrap_or_default();
            format!("FAILED  {:>6.2} s  {case}: {first}", took.as_secs_f64())
        }
        Outcome::Ignored(reason) => format!("ignored           {case} ({reason})"),
    }
}

/// What failed, each with its history.
#[must_use]
pub fn failures(finished: &[Finished]) -> String {
    let mut text = String::new();
    for done in finished {
        if let Outcome::Failed { failure, history } = &done.outcome {
            let _ = write!(
                text,
                "\n--- {} on {}\n{failure}\n\nhistory:\n{history}",
                done.case, done.target
            );
        }
    }
    text
}

impl Summary {
    /// The summary of these.
    #[must_use]
    pub fn of(finished: &[Finished]) -> Self {
        let mut summary = Self::default();
        for done in finished {
            match done.outcome {
                Outcome::Passed => summary.passed += 1,
                Outcome::Failed { .. } => summary.failed += 1,
                Outcome::Ignored(_) => summary.ignored += 1,
            }
        }
        summary
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} ignored",
            self.passed, self.failed, self.ignored
        )
    }
}

/// The run as a JUnit report.
///
/// # Errors
///
/// When it cannot be written as XML.
pub fn junit(finished: &[Finished]) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("dlock-conformance");
    for target in finished.chunk_by(|a, b| a.target == b.target) {
        let name = target.first().map(|done| done.target.clone());
        let mut suite = TestSuite::new(name.unwrap_or_default());
        suite.add_test_cases(target.iter().map(junit_case));
        report.add_test_suite(suite);
    }
    report.to_string()
}

fn junit_case(done: &Finished) -> TestCase {
    let status = match &done.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed { failure, history } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(failure.clone());
            status.set_description(format!("{failure}\n\nhistory:\n{history}"));
            status
        }
        Outcome::Ignored(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.clone());
            status
        }
    };
    let mut case = TestCase::new(done.case.clone(), status);
    case.set_time(done.took.max(Duration::from_millis(1)));
    case
}
