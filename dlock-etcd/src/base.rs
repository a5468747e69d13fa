//! Fencing tokens: a claim's ticket, on the scale of microseconds since 1970.
//!
//! The revision at which a claim's key was created is its ticket, and conflicting claims are granted
//! in the order of their tickets. So the ticket could be the token (FENCE), if revisions did not begin
//! anew with a new cluster. Therefore a token's order is **base + 16 × ticket**, where the key `base` holds a
//! number that only rises; and times 16, so that a holder's process has tokens for its hand-overs. Each request
//! proposes *now − 16 × revision*, in microseconds, and the transaction that
//! writes the claim raises the base to that if it is more: tokens are then about the time, and go on
//! rising when the cluster's data is lost, and when the lock moves to another kind of store and back
//! while sessions stay open.
//!
//! **It must be the base as of the ticket.** Who asks again later, after others have raised it, would
//! otherwise give an earlier holder a greater token than the one after it. A transaction that raises
//! the base knows what it raises it to, and writes that into the claim's own record: whoever reads the
//! claim has its token. A transaction that finds a greater base already (another client's clock is
//! ahead) answers with what it found. Only if that answer is lost, or for somebody who inspects the
//! lock, is the base looked up: it is the current one if that is older than the ticket, and otherwise
//! the one that the server still has at the ticket's revision.
//!
//! The number has a fixed width, so that the server, which compares bytes, compares numbers.

use std::time::UNIX_EPOCH;

use dlock_core::FencingToken;
use dlock_core::mutants::{Mutant, is_on};

/// How far apart the orders of two revisions are. A cluster that makes 60,000 revisions a second would
/// run ahead of the time.
pub(crate) const STEP: u64 = 16;
/// Enough for every base whose tokens are in range.
const DIGITS: usize = 16;

/// The base as the store keeps it.
pub(crate) fn text(base: u64) -> String {
    format!("{base:0DIGITS$}")
}

/// Reads what [`text`] wrote.
pub(crate) fn read(text: &[u8]) -> Option<u64> {
    let digits = text.len() == DIGITS && text.iter().all(u8::is_ascii_digit);
    digits
        .then(|| std::str::from_utf8(text).ok()?.parse().ok())
        .flatten()
}

/// The token of a claim with this ticket; `None` when somebody has made the base absurd.
pub(crate) fn token(base: u64, ticket: i64) -> Option<FencingToken> {
    let order = base.checked_add(u64::try_from(ticket).ok()?.checked_mul(STEP)?)?;
    (order < 1 << 53).then(|| FencingToken::from_order(order))
}

/// What a request proposes at `revision`, where it has seen the base `known`: more than that, so that
/// it raises the base, and the claim's record has it, also where this machine's clock is behind.
pub(crate) fn proposal(now: u64, revision: i64, known: u64) -> u64 {
    let revision = u64::try_from(revision).unwrap_or(0);
    // A clock that is absurd says nothing: nobody could have a token any more, and the base never falls.
    let now = if now < 1 << 53 { now } else { 0 };
    now.saturating_sub(revision.saturating_mul(STEP))
        .max(known.saturating_add(1))
}

/// Microseconds since 1970.
pub(crate) fn now() -> u64 {
    if is_on(Mutant::TokensFromZero) {
        return 0;
    }
    let since_1970 = dlock_core::wall_clock().duration_since(UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_compares_as_bytes_like_a_number() {
        let numbers = [0, 9, 10, 99, 1_770_000_000_000_000, (1 << 53) - 1];
        for pair in numbers.windows(2) {
            assert!(text(pair[0]).as_bytes() < text(pair[1]).as_bytes());
            assert_eq!(read(text(pair[1]).as_bytes()), Some(pair[1]));
        }
        for bad in ["", "1", "+000000000000001", "99999999999999999"] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    /// FENCE: whatever the clocks say, a later ticket has a greater token.
    #[test]
    fn a_proposal_is_the_time_and_more_than_what_is_known() {
        assert_eq!(proposal(1_000_000, 400, 0), 993_600);
        assert_eq!(proposal(1_000_000, 400, 2_000_000), 2_000_001);
        assert_eq!(proposal(5, 400, 0), 1);
        for absurd in [1 << 53, u64::MAX] {
            assert_eq!(proposal(absurd, 400, 7), 8);
        }
        let order = token(proposal(1_000_000, 400, 0), 401).unwrap().order();
        assert_eq!(order, 1_000_016, "the token is about the time");
        let next = token(proposal(1_000_000, 400, 0), 402).unwrap().order();
        assert_eq!(next, order + STEP);
    }

    #[test]
    fn an_absurd_base_gives_no_token() {
        assert_eq!(token(1 << 53, 1), None);
        assert_eq!(token(u64::MAX, 1), None);
        assert_eq!(token(1, -1), None);
    }
}
