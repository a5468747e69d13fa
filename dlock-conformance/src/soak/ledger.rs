//! What has happened in a fault run, as the workers, the resource and the nemesis have told it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlock_core::{FencingToken, Mode};

use super::lines::{Ending, Line, Miss, now};
use crate::check::{Access, Hold, compatible};

/// The record of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    start: Duration,
    locks: Vec<String>,
    written: Mutex<Written>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// The acquires of each process that ever ran, by their numbers.
    lives: Vec<Life>,
    accesses: Vec<Access>,
    pub(super) faults: Vec<Fault>,
    pub(super) wrong: Vec<String>,
    /// Accesses that the resource refused.
    pub(super) stale: usize,
    grants: usize,
}

/// One process, from its start to its end.
#[derive(Clone, Debug)]
struct Life {
    /// Which of the workers it was.
    member: usize,
    ops: HashMap<u64, Op>,
    /// Acquires that have not returned.
    open: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Op {
    who: String,
    lock: usize,
    mode: Mode,
    asked: Duration,
    got: Option<Got>,
    missed: Option<(Duration, Miss)>,
    ended: Option<(Duration, Ending)>,
}

#[derive(Clone, Copy, Debug)]
struct Got {
    token: FencingToken,
    /// The first and the last time at which it was certainly held.
    held: Option<(Duration, Duration)>,
}

/// Something that the nemesis did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// In words.
    pub(super) what: String,
    /// Its kind, by which faults are counted.
    pub(super) kind: &'static str,
    pub(super) from: Duration,
    pub(super) until: Duration,
    /// How many acquires were waiting when it began.
    pub(super) waiting: usize,
}

/// Names one fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultId(usize);

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) asked: usize,
    pub(super) grants: usize,
    /// Grants to another process than the one before, in a mode that conflicts with it.
    pub(super) hand_overs: usize,
    pub(super) missed: HashMap<Miss, usize>,
    pub(super) ended: HashMap<Ending, usize>,
    pub(super) longest_wait: Duration,
}

impl Written {
    /// How many processes there were.
    pub(super) fn processes(&self) -> usize {
        self.lives.len()
    }

    /// How many accesses the resource has let in.
    pub(super) fn let_in(&self) -> usize {
        self.accesses.len()
    }
}

impl Ledger {
    pub(super) fn new(locks: Vec<String>) -> Self {
        Self {
            start: now(),
            locks,
            written: Mutex::default(),
        }
    }

    /// The time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.since(now())
    }

    fn since(&self, at: Duration) -> Duration {
        at.saturating_sub(self.start)
    }

    /// Another process begins; returns its number.
    pub(super) fn begins(&self, member: usize) -> u32 {
        let mut written = self.lock();
        written.lives.push(Life {
            member,
            ops: HashMap::new(),
            open: 0,
        });
        u32::try_from(written.lives.len() - 1).unwrap_or(u32::MAX)
    }

    /// The process is gone, with all that it was waiting for.
    pub(super) fn ends(&self, life: u32) {
        if let Some(life) = self.lock().lives.get_mut(life as usize) {
            life.open = 0;
        }
    }

    /// Takes in what a process has printed.
    pub(super) fn take(&self, life: u32, line: Line) {
        let mut written = self.lock();
        if let Err(words) = self.note(&mut written, life, line) {
            written.wrong.push(words);
        }
    }

    fn note(&self, written: &mut Written, life: u32, line: Line) -> Result<(), String> {
        let number = life;
        let life = match line {
            Line::In { .. } | Line::Wrong(_) | Line::Stale { .. } => None,
            _ => written.lives.get_mut(life as usize),
        };
        let op = |op: u64| format!("process {number} said something of acquire {op} out of turn");
        match (line, life) {
            (
                Line::Ask {
                    op,
                    task,
                    lock,
                    mode,
                    at,
                },
                Some(life),
            ) => {
                let who = format!("p{}.{number}/{task}", life.member);
                life.open += 1;
                let asked = self.since(at);
                let asked = Op {
                    who,
                    lock,
                    mode,
                    asked,
                    got: None,
                    missed: None,
                    ended: None,
                };
                life.ops.insert(op, asked);
            }
            (Line::Got { op: n, token, at }, Some(life)) => {
                life.open = life.open.saturating_sub(1);
                let at = at.map(|at| self.since(at));
                let held = at.map(|at| (at, at));
                written.grants += 1;
                life.ops.get_mut(&n).ok_or_else(|| op(n))?.got = Some(Got { token, held });
            }
            (Line::Saw { op: n, at }, Some(life)) => {
                let at = self.since(at);
                let known = life.ops.get_mut(&n).and_then(|op| op.got.as_mut());
                let known = known.ok_or_else(|| op(n))?;
                let from = known.held.map_or(at, |(from, _)| from);
                known.held = Some((from, at));
            }
            (Line::Not { op: n, at, why }, Some(life)) => {
                life.open = life.open.saturating_sub(1);
                let missed = Some((self.since(at), why));
                life.ops.get_mut(&n).ok_or_else(|| op(n))?.missed = missed;
            }
            (Line::End { op: n, at, how }, Some(life)) => {
                let ended = Some((self.since(at), how));
                life.ops.get_mut(&n).ok_or_else(|| op(n))?.ended = ended;
            }
            (Line::Stale { .. }, _) => written.stale += 1,
            (
                Line::In {
                    process,
                    op,
                    lock,
                    mode,
                    token,
                    at,
                    before,
                    after,
                },
                _,
            ) => {
                let access = Access {
                    who: format!("process {process}, acquire {op}"),
                    lock: self.name(lock),
                    mode,
                    token,
                    at: self.since(at),
                    before,
                    after,
                };
                written.accesses.push(access);
            }
            (Line::Wrong(words), _) => written.wrong.push(words),
            (_, None) => return Err(format!("there is no process {number}")),
        }
        Ok(())
    }

    /// A fault begins.
    pub(super) fn strike(&self, kind: &'static str, what: String) -> FaultId {
        let from = self.now();
        let mut written = self.lock();
        let waiting = written.lives.iter().map(|life| life.open).sum();
        written.faults.push(Fault {
            what,
            kind,
            from,
            until: from,
            waiting,
        });
        FaultId(written.faults.len() - 1)
    }

    /// The fault is over.
    pub(super) fn mend(&self, id: FaultId) {
        let until = self.now();
        if let Some(fault) = self.lock().faults.get_mut(id.0) {
            fault.until = until;
        }
    }

    /// Something that cannot be.
    pub(super) fn wrong(&self, words: String) {
        self.lock().wrong.push(words);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, lock: usize) -> String {
        self.locks.get(lock).cloned().unwrap_or_default()
    }

    /// Every hold of which something is certain.
    pub(super) fn holds(&self) -> Vec<Hold> {
        let written = self.lock();
        let ops = written.lives.iter().flat_map(|life| life.ops.values());
        let hold = |op: &Op| {
            let got = op.got?;
            let (from, until) = got.held?;
            Some(Hold {
                who: op.who.clone(),
                lock: self.name(op.lock),
                mode: op.mode,
                token: got.token,
                asked: Some(op.asked),
                from,
                until,
            })
        };
        ops.filter_map(hold).collect()
    }

    pub(super) fn accesses(&self) -> Vec<Access> {
        self.lock().accesses.clone()
    }

    /// How many grants so far, and how many faults.
    pub(super) fn so_far(&self) -> (usize, usize) {
        let written = self.lock();
        (written.grants, written.faults.len())
    }

    pub(super) fn tally(&self) -> Tally {
        let written = self.lock();
        let mut tally = Tally::default();
        let mut grants: Vec<(usize, FencingToken, usize, Mode)> = Vec::new();
        for (number, life) in written.lives.iter().enumerate() {
            for op in life.ops.values() {
                tally.asked += 1;
                if let Some(got) = op.got {
                    grants.push((op.lock, got.token, number, op.mode));
                    let waited = got.held.map(|(from, _)| from.saturating_sub(op.asked));
                    tally.longest_wait = tally.longest_wait.max(waited.unwrap_or_default());
                }
                if let Some((_, why)) = op.missed {
                    *tally.missed.entry(why).or_default() += 1;
                }
                if let Some((_, how)) = op.ended {
                    *tally.ended.entry(how).or_default() += 1;
                }
            }
        }
        grants.sort_by_key(|(lock, token, ..)| (*lock, *token));
        tally.grants = grants.len();
        let changes = grants.windows(2).filter(|pair| {
            let ((lock, _, process, mode), (before_lock, _, before, before_mode)) =
                (pair[1], pair[0]);
            lock == before_lock && process != before && !compatible(mode, before_mode)
        });
        tally.hand_overs = changes.count();
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ledger: &Ledger, life: u32, text: &str) {
        ledger.take(life, text.parse().unwrap());
    }

    #[test]
    fn it_puts_lines_together() {
        let ledger = Ledger {
            start: Duration::from_micros(100),
            ..Ledger::new(vec!["a".into(), "b".into()])
        };
        let (one, two) = (ledger.begins(0), ledger.begins(1));
        told(&ledger, one, "ask 0 0 1 EX 110");
        told(&ledger, two, "ask 0 0 1 PR 111");
        let fault = ledger.strike("cut", "p1 is cut off".into());
        told(&ledger, one, "got 0 1024 112");
        told(&ledger, one, "saw 0 120");
        told(&ledger, one, "end 0 121 released");
        told(&ledger, two, "got 0 2048 130");
        told(&ledger, two, "ask 1 0 0 EX 131");
        told(&ledger, two, "not 1 132 timed-out");
        told(&ledger, two, "stale 0");
        told(&ledger, two, "in 1 0 1 PR 2048 133 5 5");
        ledger.mend(fault);
        let mut holds = ledger.holds();
        holds.sort_by_key(|hold| hold.from);
        let times = |hold: &Hold| (hold.from.as_micros(), hold.until.as_micros());
        assert_eq!(
            holds.iter().map(times).collect::<Vec<_>>(),
            [(12, 20), (30, 30)]
        );
        assert_eq!(holds[0].who, "p0.0/0");
        assert_eq!(ledger.accesses()[0].before, 5);
        let tally = ledger.tally();
        assert_eq!((tally.asked, tally.grants, tally.hand_overs), (3, 2, 1));
        assert_eq!(tally.missed[&Miss::TimedOut], 1);
        assert_eq!(tally.longest_wait, Duration::from_micros(19));
        let written = ledger.lock().clone();
        assert_eq!((written.faults[0].waiting, written.stale), (2, 1));
        assert!(written.wrong.is_empty());
    }

    #[test]
    fn what_comes_out_of_turn_is_wrong() {
        let ledger = Ledger::new(Vec::new());
        let life = ledger.begins(0);
        told(&ledger, life, "saw 3 5");
        told(&ledger, 7, "ask 0 0 0 EX 1");
        assert_eq!(ledger.lock().wrong.len(), 2);
    }
}
