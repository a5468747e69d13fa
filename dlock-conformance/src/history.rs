//! What happened in a case: who did what, who held what, and when, on one clock.
//!
//! Two uses. A case that fails prints its history, so that the reader sees the schedule that broke
//! the promise. And after every case, whatever it was about, the runner checks two rules over all
//! holds that it recorded:
//!
//! - **ATOM-A**: no two holds of one lock in conflicting modes overlap. A hold is counted only for
//!   the time in which it is certain: from the return of the acquire to the call of the release, or
//!   to the last look at which the guard said that it was held. So a violation is never an artefact
//!   of the time that a message takes.
//! - **FENCE**: of two such holds, the later one's token is greater.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dlock_core::{FencingToken, Mode};

use crate::check::{self, Hold};
use crate::{Failure, Verdict};

/// The record of one case. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct History(Arc<Record>);

#[derive(Debug)]
struct Record {
    start: Instant,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    events: Vec<Event>,
    holds: Vec<Hold>,
}

#[derive(Debug)]
struct Event {
    at: Duration,
    who: String,
    what: String,
}

/// Names one [`Hold`] of a history.
#[derive(Clone, Copy, Debug)]
pub struct HoldId(usize);

/// Only the last events of a long history are printed: the schedule that broke the rule is there.
const SHOWN: usize = 150;

impl Default for History {
    fn default() -> Self {
        Self(Arc::new(Record {
            start: Instant::now(),
            written: Mutex::default(),
        }))
    }
}

impl History {
    /// The time on the history's clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.start.elapsed()
    }

    /// Records that somebody did or saw something.
    pub fn note(&self, who: impl Into<String>, what: impl Into<String>) {
        let event = Event {
            at: self.now(),
            who: who.into(),
            what: what.into(),
        };
        self.written().events.push(event);
    }

    /// Records a grant that has just been returned.
    pub fn granted(&self, who: &str, lock: &str, mode: Mode, token: FencingToken) -> HoldId {
        self.note(who, format!("granted {mode} on {lock:?}, token {token}"));
        let now = self.now();
        let mut written = self.written();
        written.holds.push(Hold {
            who: who.to_owned(),
            lock: lock.to_owned(),
            mode,
            token,
            asked: None,
            from: now,
            until: now,
        });
        HoldId(written.holds.len() - 1)
    }

    /// Records that the hold certainly lasted until `until`. Take that time *before* the look at
    /// the guard, or before the call that ends it.
    pub fn held_until(&self, id: HoldId, until: Duration) {
        if let Some(hold) = self.written().holds.get_mut(id.0) {
            hold.until = hold.until.max(until);
        }
    }

    /// Every hold so far.
    #[must_use]
    pub fn holds(&self) -> Vec<Hold> {
        self.written().holds.clone()
    }

    /// Checks ATOM-A and FENCE over all holds.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names the two holds which break a rule.
    pub fn check(&self) -> Verdict {
        let findings = check::holds(&self.holds(), |_, _| None);
        match findings.violations.into_iter().next() {
            Some(found) => Err(Failure::new(found.text)),
            None => Ok(()),
        }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.0
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for History {
    /// One line an event: seconds, who, what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = self.written();
        let skipped = written.events.len().saturating_sub(SHOWN);
        let shown = &written.events[skipped..];
        let width = shown.iter().map(|event| event.who.chars().count()).max();
        let width = width.unwrap_or(0);
        if skipped > 0 {
            writeln!(f, "  … {skipped} earlier events")?;
        }
        for Event { at, who, what } in shown {
            let mut indent = String::new();
            write!(indent, "  {:>10.6} s  {who:<width$}  ", at.as_secs_f64())?;
            writeln!(f, "{indent}{}", what.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(history: &History, mode: Mode, order: u64) -> HoldId {
        history.granted("a", "lock", mode, FencingToken::from_order(order))
    }

    #[test]
    fn an_overlap_of_conflicting_holds_is_found_and_of_others_is_none() {
        let history = History::default();
        let first = hold(&history, Mode::ProtectedRead, 1);
        let shared = hold(&history, Mode::ProtectedRead, 2);
        history.held_until(first, history.now());
        history.held_until(shared, history.now());
        assert!(history.check().is_ok());
        hold(&history, Mode::Exclusive, 3);
        assert!(history.check().is_ok());
        history.held_until(shared, history.now());
        let failure = history.check().unwrap_err().to_string();
        assert!(failure.starts_with("ATOM-A"), "{failure}");
    }

    #[test]
    fn a_token_that_does_not_rise_is_found() {
        let history = History::default();
        hold(&history, Mode::Exclusive, 2);
        hold(&history, Mode::Null, 1);
        assert!(history.check().is_ok());
        hold(&history, Mode::Exclusive, 2);
        let failure = history.check().unwrap_err().to_string();
        assert!(failure.starts_with("FENCE"), "{failure}");
    }

    #[test]
    fn it_prints_aligned() {
        let history = History::default();
        history.note("a", "asks");
        history.note("worker", "is killed");
        let text = history.to_string();
        let columns: Vec<Option<usize>> = text
            .lines()
            .map(|line| line.find("asks").or_else(|| line.find("is killed")))
            .collect();
        assert_eq!(columns[0], columns[1], "{text}");
    }
}
