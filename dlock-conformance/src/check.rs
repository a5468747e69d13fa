//! The checker: whether what is certain about a run can all be true.
//!
//! It gives three verdicts, over what clients and a resource have recorded on one clock:
//!
//! - **store order** (FENCE): of two grants that conflict, the later one has the greater token. Which is
//!   the later one is certain, since each was certainly held at its `from`.
//! - **belief** (ATOM-A): no two holds in conflicting modes overlap. A hold counts only for the time in which
//!   it is certain, so a violation is never an artefact of the time that a message takes, nor of a process
//!   that stood still.
//! - **effect** (FENCE, ATOM-A): a resource that asks a [`Fence`](dlock_core::Fence) accepts nothing stale:
//!   of two accesses that it has let in, in modes that conflict, the later one does not have the smaller token;
//!   no update is lost; and what a mode protects from all writers does not change between two accesses of
//!   one hold.
//!
//! The table of modes is written out here once more: a suite that asked the library which modes
//! conflict would follow it into any mistake.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use dlock_core::{FencingToken, Mode};

/// The contract's table, row by row in the order NL, CR, CW, PR, PW, EX.
const TABLE: [&[u8; 6]; 6] = [
    b"YYYYYY", b"YYYYYN", b"YYYNNN", b"YYNYNN", b"YYNNNN", b"YNNNNN",
];

/// The modes beside which nobody may write.
const PROTECTED: [Mode; 3] = [Mode::ProtectedRead, Mode::ProtectedWrite, Mode::Exclusive];

/// Whether the contract lets these two modes be held side by side.
#[must_use]
pub fn compatible(a: Mode, b: Mode) -> bool {
    TABLE[a.index()][b.index()] == b'Y'
}

/// One grant, and for how long it was certainly held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who held it.
    pub who: String,
    /// The lock.
    pub lock: String,
    /// The mode.
    pub mode: Mode,
    /// The grant's token.
    pub token: FencingToken,
    /// When it was asked for, if that is known.
    pub asked: Option<Duration>,
    /// The first time at which it was certainly held.
    pub from: Duration,
    /// The last time at which it was certainly still held.
    pub until: Duration,
}

/// One access that the resource has let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whose.
    pub who: String,
    /// The lock that protects what was accessed.
    pub lock: String,
    /// The mode of the grant that was shown.
    pub mode: Mode,
    /// Its token.
    pub token: FencingToken,
    /// When, on the clock of the run.
    pub at: Duration,
    /// What there was before it.
    pub before: u64,
    /// What it left.
    pub after: u64,
}

/// Which verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Tokens follow the store's order of grants.
    StoreOrder,
    /// Nobody is certain of a lock while somebody else is.
    Belief,
    /// A fenced resource accepts nothing stale and loses nothing.
    Effect,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 3] = [Rule::StoreOrder, Rule::Belief, Rule::Effect];
}

/// A verdict against the run.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The rule that was broken.
    pub rule: Rule,
    /// What was found, with the two that cannot both be.
    pub text: String,
    /// The lock that it is about.
    pub lock: String,
    /// The time between the two.
    pub span: (Duration, Duration),
}

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What can be no other way than wrong, in the order of time.
    pub violations: Vec<Violation>,
    /// Overlaps that the contract excludes from its promise, each with the reason.
    pub excused: Vec<String>,
}

/// The verdicts *store order* and *belief* over all holds. `excuse` says why two holds may overlap: the
/// earlier one, and the later one.
#[must_use]
pub fn holds(holds: &[Hold], excuse: impl Fn(&Hold, &Hold) -> Option<String>) -> Findings {
    let mut by_lock: HashMap<&str, Vec<&Hold>> = HashMap::new();
    for hold in holds {
        by_lock.entry(&hold.lock).or_default().push(hold);
    }
    let mut findings = Findings::default();
    for of_one_lock in by_lock.values_mut() {
        of_one_lock.sort_by_key(|hold| (hold.from, hold.until));
        one_lock(of_one_lock, &excuse, &mut findings);
    }
    findings.violations.sort_by_key(|found| found.span.1);
    findings
}

/// These are in the order of `from`.
fn one_lock(
    holds: &[&Hold],
    excuse: &impl Fn(&Hold, &Hold) -> Option<String>,
    findings: &mut Findings,
) {
    // Those that may still be held, and in each mode the one with the greatest token.
    let mut standing: Vec<&Hold> = Vec::new();
    let mut newest: [Option<&Hold>; 6] = [None; 6];
    for hold in holds {
        standing.retain(|earlier| earlier.until > hold.from);
        let conflicts = |earlier: &&Hold| !compatible(earlier.mode, hold.mode);
        for earlier in standing.iter().copied().filter(conflicts) {
            match excuse(earlier, hold) {
                Some(reason) => findings
                    .excused
                    .push(format!("{reason}:\n  {earlier}\n  {hold}")),
                None => findings.violations.push(violation(
                    Rule::Belief,
                    "ATOM-A: conflicting holds overlap",
                    earlier,
                    hold,
                )),
            }
        }
        let before = newest.iter().flatten().copied().filter(conflicts);
        if let Some(greater) = before.max_by_key(|earlier| earlier.token)
            && greater.token >= hold.token
        {
            findings.violations.push(violation(
                Rule::StoreOrder,
                "FENCE: the later hold's token is not greater",
                greater,
                hold,
            ));
        }
        standing.push(hold);
        let of_its_mode = &mut newest[hold.mode.index()];
        if of_its_mode.is_none_or(|known| known.token < hold.token) {
            *of_its_mode = Some(hold);
        }
    }
}

fn violation(rule: Rule, what: &str, earlier: &Hold, later: &Hold) -> Violation {
    Violation {
        rule,
        text: format!("{what}:\n  {earlier}\n  {later}"),
        lock: later.lock.clone(),
        // The earlier one's last certain time may be long before the later one's first.
        span: (earlier.until.min(later.from), earlier.until.max(later.from)),
    }
}

/// The verdict *effect* over what a resource has let in, in its order.
#[must_use]
pub fn accesses(accesses: &[Access]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut last: HashMap<&str, &Access> = HashMap::new();
    let mut newest: HashMap<(&str, usize), &Access> = HashMap::new();
    let mut own: HashMap<(&str, FencingToken), &Access> = HashMap::new();
    for access in accesses {
        let lock = access.lock.as_str();
        let mut wrong = |what: &str, earlier: &Access| {
            violations.push(Violation {
                rule: Rule::Effect,
                text: format!("{what}:\n  {earlier}\n  {access}"),
                lock: access.lock.clone(),
                span: (earlier.at, access.at),
            });
        };
        let conflicting = Mode::ALL
            .into_iter()
            .filter(|mode| !compatible(*mode, access.mode));
        for mode in conflicting {
            if let Some(newer) = newest.get(&(lock, mode.index()))
                && newer.token > access.token
            {
                wrong("FENCE: a stale access was let in", newer);
            }
        }
        if let Some(last) = last.insert(lock, access)
            && last.after != access.before
        {
            wrong("ATOM-A: an update was lost", last);
        }
        if PROTECTED.contains(&access.mode)
            && let Some(earlier) = own.insert((lock, access.token), access)
            && earlier.mode == access.mode
            && earlier.after != access.before
        {
            wrong("ATOM-A: what the lock protects has changed", earlier);
        }
        let of_its_mode = newest.entry((lock, access.mode.index())).or_insert(access);
        if of_its_mode.token < access.token {
            *of_its_mode = access;
        }
    }
    violations
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} held {} on {:?} from {:.6} s to {:.6} s, token {}",
            self.who,
            self.mode,
            self.lock,
            self.from.as_secs_f64(),
            self.until.as_secs_f64(),
            self.token,
        )
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with {} on {:?} at {:.6} s, token {}: {} became {}",
            self.who,
            self.mode,
            self.lock,
            self.at.as_secs_f64(),
            self.token,
            self.before,
            self.after,
        )
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::StoreOrder => "store order",
            Rule::Belief => "belief",
            Rule::Effect => "effect",
        })
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
