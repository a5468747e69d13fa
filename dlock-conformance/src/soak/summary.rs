//! What came of a fault run: for people, for CI, and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::ledger::{Fault, Ledger, Tally};
use crate::Verdict;
use crate::check::{Findings, Hold, Rule, Violation};
use crate::runner::{Finished, Outcome};
use crate::timeline::{Band, svg};

/// Below these, a run has shown nothing: grants that change owner in conflicting modes, and faults that fell
/// while somebody waited, for each minute that it took.
const LEAST_HAND_OVERS: f64 = 30.0;
const LEAST_FAULTS: f64 = 4.0;

/// What came of a fault run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    target: String,
    seed: u64,
    seconds: f64,
    workers: usize,
    processes: usize,
    asked: usize,
    grants: usize,
    hand_overs: usize,
    longest_wait_seconds: f64,
    missed: BTreeMap<String, usize>,
    ended: BTreeMap<String, usize>,
    accesses: usize,
    stale_refused: usize,
    faults: BTreeMap<String, usize>,
    faults_while_waiting: usize,
    excused: Vec<String>,
    /// What speaks against the run, by what was checked.
    failures: BTreeMap<String, Vec<String>>,
    /// The part of the history that shows the first violation, in words and drawn.
    #[serde(skip)]
    shown: Option<(String, String)>,
}

/// What a summary is made of.
pub(super) struct Run<'a> {
    pub(super) target: String,
    pub(super) seed: u64,
    pub(super) took: Duration,
    pub(super) workers: usize,
    pub(super) ledger: &'a Ledger,
    pub(super) holds: &'a [Hold],
    pub(super) findings: Findings,
    pub(super) effect: Vec<Violation>,
    /// How it ended once nothing was broken any more.
    pub(super) quiet: Verdict,
}

/// What is checked: each is a test in the JUnit report.
const LIVENESS: &str = "liveness";
const ENOUGH: &str = "enough was done";
const CONSISTENT: &str = "the record is consistent";

/// Many violations have one cause: so many are told.
const TOLD: usize = 5;

impl Summary {
    pub(super) fn new(run: Run<'_>) -> Self {
        let tally = run.ledger.tally();
        let written = run.ledger.lock();
        let minutes = run.took.as_secs_f64() / 60.0;
        let waiting = written.faults.iter().filter(|fault| fault.waiting > 0);
        let faults_while_waiting = waiting.count();
        let mut violations = run.findings.violations;
        violations.extend(run.effect);
        violations.sort_by_key(|found| found.span.1);
        let mut failures: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rule in Rule::ALL {
            let of_it = violations.iter().filter(|found| found.rule == rule);
            let texts: Vec<String> = of_it.map(|found| found.text.clone()).collect();
            failures.insert(rule.to_string(), texts);
        }
        let quiet = run.quiet.err().map(|failure| failure.to_string());
        failures.insert(LIVENESS.into(), quiet.into_iter().collect());
        failures.insert(CONSISTENT.into(), written.wrong.clone());
        failures.insert(
            ENOUGH.into(),
            too_little(&tally, faults_while_waiting, minutes),
        );
        let mut faults = BTreeMap::new();
        for fault in &written.faults {
            *faults.entry(fault.kind.to_owned()).or_default() += 1;
        }
        let named = |(what, count): (&dyn fmt::Display, &usize)| (what.to_string(), *count);
        Self {
            target: run.target,
            seed: run.seed,
            seconds: run.took.as_secs_f64(),
            workers: run.workers,
            // One is the resource.
            processes: written.processes().saturating_sub(1),
            asked: tally.asked,
            grants: tally.grants,
            hand_overs: tally.hand_overs,
            longest_wait_seconds: tally.longest_wait.as_secs_f64(),
            missed: tally.missed.iter().map(|(a, b)| named((a, b))).collect(),
            ended: tally.ended.iter().map(|(a, b)| named((a, b))).collect(),
            accesses: written.let_in(),
            stale_refused: written.stale,
            faults,
            faults_while_waiting,
            excused: run.findings.excused,
            failures,
            shown: violations
                .first()
                .map(|found| show(found, run.holds, &written.faults)),
        }
    }

    /// Whether nothing speaks against the run.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.failures.values().all(Vec::is_empty)
    }

    /// The part of the history that shows the first verdict against the run, drawn as SVG.
    #[must_use]
    pub fn timeline(&self) -> Option<&str> {
        self.shown.as_ref().map(|(_, drawn)| drawn.as_str())
    }

    /// As JSON.
    ///
    /// # Errors
    ///
    /// None; it is here so that no panic is.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Each thing that was checked, as a case.
    #[must_use]
    pub fn cases(&self) -> Vec<Finished> {
        let case = |(what, texts): (&String, &Vec<String>)| Finished {
            target: self.target.clone(),
            case: format!("soak/{what}"),
            outcome: match texts.first() {
                None => Outcome::Passed,
                Some(_) => Outcome::Failed {
                    failure: told(texts),
                    history: String::new(),
                },
            },
            took: Duration::from_secs_f64(self.seconds),
        };
        self.failures.iter().map(case).collect()
    }
}

/// The shortest part of the history that shows what was found: who held that lock while it happened,
/// and what was broken then.
fn show(found: &Violation, holds: &[Hold], faults: &[Fault]) -> (String, String) {
    let (start, end) = found.span;
    let during = |from: Duration, until: Duration| from <= end && until >= start;
    let mut holds: Vec<Hold> = holds
        .iter()
        .filter(|hold| hold.lock == found.lock && during(hold.from, hold.until))
        .cloned()
        .collect();
    holds.sort_by_key(|hold| hold.from);
    let bands: Vec<Band> = faults
        .iter()
        .filter(|fault| during(fault.from, fault.until))
        .map(|fault| Band {
            what: fault.what.clone(),
            from: fault.from,
            until: fault.until,
        })
        .collect();
    let title = found.text.lines().next().unwrap_or_default();
    let drawn = svg(title, &holds, &bands);
    let mut lines: Vec<(Duration, String)> = Vec::new();
    lines.extend(holds.iter().map(|hold| (hold.from, hold.to_string())));
    lines.extend(bands.into_iter().map(|band| {
        let Band { what, from, until } = band;
        let (from_s, until_s) = (from.as_secs_f64(), until.as_secs_f64());
        (
            from,
            format!("{what}: from {from_s:.6} s to {until_s:.6} s"),
        )
    }));
    lines.sort();
    let lines: Vec<String> = lines
        .into_iter()
        .map(|(_, line)| format!("  {line}"))
        .collect();
    (lines.join("\n"), drawn)
}

fn too_little(tally: &Tally, faults: usize, minutes: f64) -> Vec<String> {
    let mut texts = Vec::new();
    let mut least = |what: &str, count: usize, a_minute: f64| {
        let least = a_minute * minutes;
        if (count as f64) < least {
            texts.push(format!("{count} {what}, and not {least:.0}"));
        }
    };
    least(
        "grants to another owner than the one before, in a conflicting mode",
        tally.hand_overs,
        LEAST_HAND_OVERS,
    );
    least("faults while somebody waited", faults, LEAST_FAULTS);
    texts
}

fn told(texts: &[String]) -> String {
    let mut told = texts.iter().take(TOLD).cloned().collect::<Vec<_>>();
    if texts.len() > TOLD {
        told.push(format!("… and {} more", texts.len() - TOLD));
    }
    told.join("\n")
}

impl fmt::Display for Summary {
    /// A table, as Markdown, and then what speaks against the run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |counts: &BTreeMap<String, usize>| {
            let each = counts.iter().map(|(what, count)| format!("{count} {what}"));
            each.collect::<Vec<_>>().join(", ")
        };
        let faults: usize = self.faults.values().sum();
        let rows = [
            ("store", self.target.clone()),
            ("seed", self.seed.to_string()),
            ("time", format!("{:.1} min", self.seconds / 60.0)),
            (
                "processes",
                format!("{} at once, {} in all", self.workers, self.processes),
            ),
            ("grants", format!("{} of {} asked", self.grants, self.asked)),
            ("conflicting changes of owner", self.hand_overs.to_string()),
            (
                "longest wait",
                format!("{:.1} s", self.longest_wait_seconds),
            ),
            ("not granted", listed(&self.missed)),
            ("holds that were", listed(&self.ended)),
            (
                "accesses",
                format!(
                    "{} let in, {} stale refused",
                    self.accesses, self.stale_refused
                ),
            ),
            (
                "faults",
                format!(
                    "{faults}, {} while somebody waited",
                    self.faults_while_waiting
                ),
            ),
            ("kinds of faults", listed(&self.faults)),
            ("excused overlaps", self.excused.len().to_string()),
        ];
        writeln!(f, "| | |\n| --- | --- |")?;
        for (what, value) in rows {
            writeln!(f, "| {what} | {value} |")?;
        }
        for (what, texts) in &self.failures {
            let verdict = if texts.is_empty() { "sound" } else { "FAILED" };
            writeln!(f, "| {what} | {verdict} |")?;
        }
        for excused in &self.excused {
            writeln!(f, "\nexcused: {excused}")?;
        }
        for (what, texts) in self.failures.iter().filter(|(_, texts)| !texts.is_empty()) {
            writeln!(f, "\n{what}:\n{}", told(texts))?;
        }
        if let Some((words, _)) = &self.shown {
            writeln!(
                f,
                "\nthe part of the history that shows the first:\n{words}"
            )?;
        }
        Ok(())
    }
}
