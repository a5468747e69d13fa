//! The six lock modes and the table of which may be held side by side.
//!
//! The modes and their table are those of the VMS distributed lock manager, which most later lock
//! managers (DLM of Linux, Oracle's, `gfs2`) took over unchanged.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mutants::{Mutant, is_on};

/// How a lock is held: what its holder does, and what it lets others do meanwhile.
///
/// | mode | the holder … | others may … |
/// | --- | --- | --- |
/// | [`Null`](Mode::Null) (NL) | only shows interest | do anything |
/// | [`ConcurrentRead`](Mode::ConcurrentRead) (CR) | reads, whatever others do | read and write |
/// | [`ConcurrentWrite`](Mode::ConcurrentWrite) (CW) | writes beside other writers | read and write unprotected |
/// | [`ProtectedRead`](Mode::ProtectedRead) (PR) | reads what nobody may change: the shared lock | read |
/// | [`ProtectedWrite`](Mode::ProtectedWrite) (PW) | is the one writer: the update lock | read unprotected |
/// | [`Exclusive`](Mode::Exclusive) (EX) | is alone: the mutex | show interest |
///
/// ```
/// use dlock_core::Mode;
///
/// assert!(Mode::ProtectedRead.compatible(Mode::ProtectedRead));
/// assert!(!Mode::ProtectedRead.compatible(Mode::ConcurrentWrite));
/// assert_eq!("PR".parse::<Mode>().unwrap(), Mode::ProtectedRead);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// NL: conflicts with nothing. It shows interest, and is seen by [`inspect`](crate::Client::inspect).
    #[serde(rename = "NL")]
    Null,
    /// CR: conflicts with EX alone.
    #[serde(rename = "CR")]
    ConcurrentRead,
    /// CW: conflicts with PR, PW and EX.
    #[serde(rename = "CW")]
    ConcurrentWrite,
    /// PR: conflicts with CW, PW and EX.
    #[serde(rename = "PR")]
    ProtectedRead,
    /// PW: conflicts with everything but NL and CR.
    #[serde(rename = "PW")]
    ProtectedWrite,
    /// EX: conflicts with everything but NL.
    #[serde(rename = "EX")]
    Exclusive,
}

/// `COMPATIBLE[a][b]`: whether a claim in mode `a` may be granted beside one in mode `b`, both by
/// [`Mode::index`]. The table is symmetric.
pub const COMPATIBLE: [[bool; 6]; 6] = {
    const Y: bool = true;
    const N: bool = false;
    [
        // NL CR CW PR PW EX
        [Y, Y, Y, Y, Y, Y], // NL
        [Y, Y, Y, Y, Y, N], // CR
        [Y, Y, Y, N, N, N], // CW
        [Y, Y, N, Y, N, N], // PR
        [Y, Y, N, N, N, N], // PW
        [Y, N, N, N, N, N], // EX
    ]
};

impl Mode {
    /// All six, from the weakest to the strongest, in the order of [`Mode::index`].
    pub const ALL: [Mode; 6] = [
        Mode::Null,
        Mode::ConcurrentRead,
        Mode::ConcurrentWrite,
        Mode::ProtectedRead,
        Mode::ProtectedWrite,
        Mode::Exclusive,
    ];

    /// The mode's row in [`COMPATIBLE`]: 0 for NL to 5 for EX. Stores keep modes by this number.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The mode of this [`index`](Mode::index), `None` above 5.
    #[must_use]
    pub const fn from_index(index: usize) -> Option<Mode> {
        if index < Mode::ALL.len() {
            Some(Mode::ALL[index])
        } else {
            None
        }
    }

    /// Whether a claim in this mode may be granted beside one in `other` (ATOM-A).
    #[must_use]
    pub fn compatible(self, other: Mode) -> bool {
        if is_on(Mutant::SwappedTable) {
            return COMPATIBLE[swap(self).index()][other.index()];
        }
        COMPATIBLE[self.index()][other.index()]
    }

    /// The weakest mode that allows what either of the two allows: it conflicts with every mode
    /// that one of them conflicts with. The join of CW and PR is PW; otherwise it is the stronger
    /// of the two.
    #[must_use]
    pub fn join(self, other: Mode) -> Mode {
        use Mode::{ConcurrentWrite, ProtectedRead, ProtectedWrite};
        match (self, other) {
            (ConcurrentWrite, ProtectedRead) | (ProtectedRead, ConcurrentWrite) => ProtectedWrite,
            (a, b) => a.max(b),
        }
    }

    /// The two letters by which the field knows the mode: `NL`, `CR`, `CW`, `PR`, `PW`, `EX`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Mode::Null => "NL",
            Mode::ConcurrentRead => "CR",
            Mode::ConcurrentWrite => "CW",
            Mode::ProtectedRead => "PR",
            Mode::ProtectedWrite => "PW",
            Mode::Exclusive => "EX",
        }
    }
}

/// The mutant `SwappedTable`: the rows of PR and CW change places. With their columns exchanged too the
/// table would be the same again: it cannot tell the two modes apart.
fn swap(mode: Mode) -> Mode {
    match mode {
        Mode::ConcurrentWrite => Mode::ProtectedRead,
        Mode::ProtectedRead => Mode::ConcurrentWrite,
        other => other,
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// The text names no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no lock mode; allowed are NL, CR, CW, PR, PW and EX")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.code().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ATOM-A: the table of the contract, written out a second time as text.
    #[test]
    fn the_table_is_the_contracts() {
        let rows = ["YYYYYY", "YYYYYN", "YYYNNN", "YYNYNN", "YYNNNN", "YNNNNN"];
        for (held, row) in Mode::ALL.into_iter().zip(rows) {
            for (asked, answer) in Mode::ALL.into_iter().zip(row.chars()) {
                assert_eq!(
                    held.compatible(asked),
                    answer == 'Y',
                    "{held} beside {asked}"
                );
                assert_eq!(held.compatible(asked), asked.compatible(held));
            }
        }
    }

    #[test]
    fn the_join_conflicts_with_what_either_conflicts_with_and_is_the_weakest_such() {
        for a in Mode::ALL {
            for b in Mode::ALL {
                let covers = |mode: Mode| {
                    Mode::ALL.into_iter().all(|other| {
                        mode.compatible(other) <= (a.compatible(other) && b.compatible(other))
                    })
                };
                let join = a.join(b);
                assert!(covers(join), "{join} does not cover {a} and {b}");
                assert_eq!(join, b.join(a));
                for weaker in Mode::ALL.into_iter().filter(|mode| *mode < join) {
                    assert!(
                        !covers(weaker),
                        "{weaker} covers {a} and {b}, and is below {join}"
                    );
                }
            }
        }
    }

    #[test]
    fn codes_read_back_and_anything_else_is_refused() {
        for mode in Mode::ALL {
            assert_eq!(mode.code().parse(), Ok(mode));
            assert_eq!(Mode::from_index(mode.index()), Some(mode));
        }
        assert_eq!(Mode::from_index(6), None);
        let error = "XX".parse::<Mode>().unwrap_err().to_string();
        assert!(
            error.contains("\"XX\"") && error.contains("NL, CR, CW"),
            "{error}"
        );
    }
}
