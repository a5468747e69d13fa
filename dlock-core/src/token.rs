//! Fencing tokens, and the resource's side of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Mode;

/// The fencing token of a grant: of two grants of one name that conflict, the later one's token is
/// greater (FENCE), across holders, sessions, restarts, loss of the store's data, and a move to
/// another kind of store.
///
/// The upper bits are the grant's place in the store's order, on the scale of microseconds since
/// 1970; the lowest ten count hand-overs inside one process, and go on into those above them where the
/// store [leaves room](crate::Session::order_step) between grants. It fits in a signed 64-bit column.
///
/// Fencing tokens and why a lock with a lease needs them:
/// [How to do distributed locking](https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html)
/// (Kleppmann, 2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct FencingToken(u64);

impl FencingToken {
    /// How many of the lowest bits count hand-overs inside one process.
    pub const LOCAL_BITS: u32 = 10;

    /// The first number that is too great for a token: it would not fit in a signed column.
    const END: u64 = 1 << 63;

    /// The token of a grant that is number `order` in the store's order.
    ///
    /// # Panics
    ///
    /// When `order` does not fit in the 53 bits that are left of a signed 64-bit number. On the
    /// scale of microseconds that is in the year 2255.
    #[must_use]
    pub const fn from_order(order: u64) -> Self {
        assert!(order < 1 << 53, "the store's order is out of range");
        Self(order << Self::LOCAL_BITS)
    }

    /// How many tokens the process may give out from this grant, its own among them, where the next
    /// grant's order is at least `step` greater.
    pub(crate) fn room(self, step: u64) -> u64 {
        let room = step.saturating_mul(1 << Self::LOCAL_BITS);
        room.min(Self::END - self.0)
    }

    /// The token of the `local`-th hand-over of this grant inside one process; 0 is the grant itself. There
    /// has to be [room](FencingToken::room) for it.
    pub(crate) fn handed_over(self, local: u64) -> Self {
        Self(self.0 + local)
    }

    /// The grant's place in the store's order.
    #[must_use]
    pub const fn order(self) -> u64 {
        self.0 >> Self::LOCAL_BITS
    }

    /// The token as a number, for a resource that compares it. Always below 2⁶³.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<FencingToken> for u64 {
    fn from(token: FencingToken) -> u64 {
        token.0
    }
}

impl From<FencingToken> for i64 {
    fn from(token: FencingToken) -> i64 {
        // No token reaches 2⁶³: neither `from_order` nor `try_from` lets it.
        token.0 as i64
    }
}

impl TryFrom<u64> for FencingToken {
    type Error = InvalidToken;

    /// Reads back a number that a resource kept.
    fn try_from(number: u64) -> Result<Self, Self::Error> {
        if number >> 63 == 0 {
            Ok(Self(number))
        } else {
            Err(InvalidToken)
        }
    }
}

impl TryFrom<i64> for FencingToken {
    type Error = InvalidToken;

    /// Reads back a number that a resource kept in a signed column.
    fn try_from(number: i64) -> Result<Self, Self::Error> {
        u64::try_from(number).map(Self).map_err(|_| InvalidToken)
    }
}

/// A number that no fencing token has: it is negative, or does not fit in a signed 64-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this number is no fencing token; a token is a number from 0 to 2^63 - 1")]
pub struct InvalidToken;

/// What a resource keeps to refuse late comers: the greatest token that it has admitted in each mode.
///
/// The resource asks it before each access, *reads included*, in the same atomic step as the access
/// itself, and keeps it with its data. It refuses a token when a conflicting mode with a greater
/// token has been admitted. So two writers in CW do not refuse each other, and a reader whose lock
/// was lost cannot read what a later writer has half written.
///
/// ```
/// use dlock_core::{Fence, FencingToken, Mode};
///
/// let mut fence = Fence::new();
/// let (early, late) = (FencingToken::from_order(1), FencingToken::from_order(2));
/// fence.admit(Mode::Exclusive, late)?;
/// assert!(fence.admit(Mode::Exclusive, early).is_err());
/// # Ok::<(), dlock_core::StaleToken>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence {
    /// The greatest token admitted in each mode, by [`Mode::index`]; 0 for none.
    admitted: [u64; 6],
}

impl Fence {
    /// A fence that has admitted nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self { admitted: [0; 6] }
    }

    /// Admits the holder of this token, or refuses it. The mode is the one in which the token was
    /// granted.
    ///
    /// # Errors
    ///
    /// [`StaleToken`] when a conflicting mode with a greater token was admitted before. The fence is
    /// unchanged then.
    pub fn admit(&mut self, mode: Mode, token: FencingToken) -> Result<(), StaleToken> {
        let conflicting = Mode::ALL
            .into_iter()
            .filter(|other| !mode.compatible(*other));
        let newest = conflicting.max_by_key(|other| self.admitted[other.index()]);
        if let Some(newer_mode) = newest
            && self.admitted[newer_mode.index()] > token.0
        {
            let newer = FencingToken(self.admitted[newer_mode.index()]);
            return Err(StaleToken {
                mode,
                token,
                newer_mode,
                newer,
            });
        }
        let greatest = &mut self.admitted[mode.index()];
        *greatest = token.0.max(*greatest);
        Ok(())
    }
}

/// A fencing token that came too late: its lock was lost, and somebody else has held it since.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stale fencing token {token} ({mode}): the lock was lost, and token {newer} ({newer_mode}) \
     has been admitted since"
)]
pub struct StaleToken {
    /// The mode of the refused token.
    pub mode: Mode,
    /// The refused token.
    pub token: FencingToken,
    /// The mode of the token that it came after.
    pub newer_mode: Mode,
    /// The token that it came after.
    pub newer: FencingToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(order: u64) -> FencingToken {
        FencingToken::from_order(order)
    }

    /// FENCE: a token fits in a signed 64-bit column.
    #[test]
    fn the_greatest_order_is_a_positive_i64() {
        let greatest = token((1 << 53) - 1);
        assert!(i64::from(greatest) > 0);
        assert_eq!(greatest.order(), (1 << 53) - 1);
        assert!(std::panic::catch_unwind(|| token(1 << 53)).is_err());
        assert_eq!(FencingToken::try_from(i64::from(greatest)), Ok(greatest));
        assert_eq!(FencingToken::try_from(-1i64), Err(InvalidToken));
        assert_eq!(FencingToken::try_from(1u64 << 63), Err(InvalidToken));
        assert!(serde_json::from_str::<FencingToken>("18446744073709551615").is_err());
    }

    /// FENCE: whatever is handed over within the process comes before the store's next grant, and fits.
    #[test]
    fn a_grant_has_room_up_to_the_next_one() {
        for step in [1, 16] {
            let last = token(100).room(step) - 1;
            assert!(token(100).handed_over(last) < token(100 + step));
            assert_eq!(
                token(100).handed_over(last).get() + 1,
                token(100 + step).get()
            );
        }
        let greatest = token((1 << 53) - 1);
        assert!(i64::from(greatest.handed_over(greatest.room(16) - 1)) > 0);
    }

    /// FENCE: refused exactly when a conflicting mode with a greater token was admitted.
    #[test]
    fn refuses_by_mode() {
        for admitted in Mode::ALL {
            for asked in Mode::ALL {
                let mut fence = Fence::new();
                fence.admit(admitted, token(2)).unwrap();
                assert!(
                    fence.admit(asked, token(2)).is_ok(),
                    "the same holder again"
                );
                let mut fence = Fence::new();
                fence.admit(admitted, token(2)).unwrap();
                assert_eq!(
                    fence.admit(asked, token(1)).is_ok(),
                    admitted.compatible(asked)
                );
                assert!(fence.admit(asked, token(3)).is_ok());
            }
        }
    }

    #[test]
    fn a_refusal_changes_nothing_and_says_what_was_newer() {
        let mut fence = Fence::new();
        fence.admit(Mode::ProtectedWrite, token(5)).unwrap();
        let before = fence.clone();
        let stale = fence.admit(Mode::Exclusive, token(4)).unwrap_err();
        assert_eq!(
            (stale.newer_mode, stale.newer),
            (Mode::ProtectedWrite, token(5))
        );
        assert_eq!(fence, before);
    }

    #[test]
    fn it_is_kept_as_json() {
        let mut fence = Fence::new();
        fence.admit(Mode::Exclusive, token(7)).unwrap();
        let text = serde_json::to_string(&fence).unwrap();
        assert_eq!(text, "[0,0,0,0,0,7168]");
        assert_eq!(serde_json::from_str::<Fence>(&text).unwrap(), fence);
    }
}
