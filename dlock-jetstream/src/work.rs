//! The operations on a lock's document.

use std::time::Duration;

use dlock_core::table::LockTable;
use dlock_core::{Attempts, Claim, ClaimId, SessionId, Wait};

use crate::documents::Document;
use crate::link::Ask;

/// The longest pause after a collision.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// One operation on one lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work<'a> {
    Request(&'a Claim, Wait),
    Look(&'a Claim),
    Withdraw(&'a Claim, Attempts),
    /// The first claim leaves, and the second asks to wait in turn.
    Replace(&'a Claim, &'a Claim),
    /// Takes out all that the session has there.
    Leave(SessionId),
}

impl Work<'_> {
    pub(crate) fn claim(&self) -> Option<ClaimId> {
        match self {
            Work::Request(claim, _)
            | Work::Look(claim)
            | Work::Withdraw(claim, _)
            | Work::Replace(_, claim) => Some(claim.id),
            Work::Leave(_) => None,
        }
    }

    /// The claim that may be let in by somebody else: it is on its way into the queue.
    pub(crate) fn newcomer(&self) -> Option<&Claim> {
        match self {
            Work::Request(claim, Wait::InTurn) => Some(claim),
            _ => None,
        }
    }

    /// Whom to ask for the document. Who writes may begin with what a replica has that lags behind: the
    /// compare-and-set finds out. An answer that needs no write must not be older than what the caller knows
    /// to have happened: a release just before a try, the release that a look follows.
    pub(crate) fn whom(&self) -> Ask {
        match self {
            Work::Request(_, Wait::InTurn) => Ask::Anyone,
            _ => Ask::Leader,
        }
    }

    /// Whether what is remembered is likely to be the last document still. Others who are in it will
    /// have changed it; who holds the lock is told of every one who comes to wait.
    pub(crate) fn trusts(&self, seen: &LockTable, own: SessionId) -> bool {
        match self {
            Work::Request(..) => seen.claims().all(|claim| claim.id.session == own),
            Work::Look(_) => false,
            Work::Withdraw(claim, _) | Work::Replace(claim, _) => seen.get(claim.id).is_some(),
            Work::Leave(_) => seen.claims().any(|claim| claim.id.session == own),
        }
    }

    /// Waits after a collision, for at most so long as all claims in the document need to be written one
    /// after the other, so that a crowd spreads; who has not got a place yet, the longer the more collisions
    /// there were. Who holds the lock and leaves does not wait: a release must not lose to a crowd (ATOM-B).
    pub(crate) async fn pause(&self, collisions: &mut u32, document: &Document, write: Duration) {
        *collisions += 1;
        let claims = u32::try_from(document.table.claims().count()).unwrap_or(u32::MAX);
        let crowd = write.saturating_mul(claims);
        let pause = match self {
            Work::Withdraw(claim, _) | Work::Replace(claim, _)
                if document.holds(|id| id == claim.id) =>
            {
                Duration::ZERO
            }
            Work::Leave(session) if document.holds(|id| id.session == *session) => Duration::ZERO,
            Work::Withdraw(..) | Work::Replace(..) | Work::Leave(_) => crowd,
            Work::Request(..) | Work::Look(_) => {
                crowd.max(Duration::from_millis(1) * (1 << (*collisions).min(8)))
            }
        };
        if !pause.is_zero() {
            let pause = pause.min(LONGEST_PAUSE).mul_f64(fastrand::f64());
            tokio::time::sleep(pause).await;
        }
    }
}
