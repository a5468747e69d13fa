//! Knocking: how a claim gets into a document that others change faster than it can.
//!
//! Who has just released a lock knows its document, and asks again with one write. Who comes from outside
//! needs a read and a write, and by then the document has changed: two clients that pass a lock to and fro
//! would keep a third one out for ever (FAIR), and among many who come back most writes would fail. So a
//! client that was overtaken, or sees that it will be, *knocks*: it sends its claim to the session that
//! holds the lock, as a plain message, and that one lets it in with its next write of the document, before
//! anything of its own.
//!
//! A knock is a courtesy. It may be lost, or come to somebody who has nothing to write: so who has knocked
//! waits for a few times as long as a write takes, and then writes by itself. Both come to the same, because
//! a claim that is in the document already is left as it is.
//!
//! **ONCE.** A knock expects no sequence, so one that is late could bring back a claim that was withdrawn. So
//! it says which document its sender had seen, and who withdraws a claim that has knocked writes down
//! that knocks from up to there are void ([`Document::void`]). That is in the way of others only if theirs
//! are as old, and they knock again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dlock_core::{Claim, ClaimId, LockName, Mode, Owner};
use serde::{Deserialize, Serialize};

use crate::documents::Document;

/// How long a knock counts after it was heard. Whoever is let in and granted at once counts as alive at that
/// moment ([`Draft::all_fresh`](crate::draft::Draft::all_fresh)), so it must have knocked shortly before.
const COUNTS_FOR: Duration = Duration::from_millis(100);
/// How many are remembered for one lock.
const MOST: usize = 1024;

/// A claim that asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Knock {
    pub(crate) claim: ClaimId,
    pub(crate) mode: Mode,
    pub(crate) owner: Owner,
    /// The sequence of the document that its session had seen.
    pub(crate) seen: u64,
}

impl Knock {
    pub(crate) fn of(claim: &Claim, document: &Document) -> Self {
        Self {
            claim: claim.id,
            mode: claim.mode,
            owner: claim.owner.clone(),
            seen: document.sequence,
        }
    }
}

/// What others have knocked for at this session.
#[derive(Debug, Default)]
pub(crate) struct Knocks(Mutex<HashMap<LockName, VecDeque<(Instant, Knock)>>>);

impl Knocks {
    fn locked(&self) -> MutexGuard<'_, HashMap<LockName, VecDeque<(Instant, Knock)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hear(&self, name: LockName, knock: Knock) {
        let mut locked = self.locked();
        locked.retain(|_, heard| {
            heard.retain(|(at, _)| at.elapsed() < COUNTS_FOR);
            !heard.is_empty()
        });
        let heard = locked.entry(name).or_default();
        if heard.len() < MOST {
            heard.push_back((Instant::now(), knock));
        }
    }

    /// Who is to be let into this document, in the order in which they knocked.
    pub(crate) fn at(&self, name: &LockName, document: &Document) -> Vec<Knock> {
        let locked = self.locked();
        let Some(heard) = locked.get(name) else {
            return Vec::new();
        };
        let counts = heard.iter().filter(|(at, knock)| {
            at.elapsed() < COUNTS_FOR
                && knock.seen > document.void
                && document.table.get(knock.claim).is_none()
        });
        counts.map(|(_, knock)| knock.clone()).collect()
    }

    /// These have been let in.
    pub(crate) fn answered(&self, name: &LockName, claims: &[ClaimId]) {
        let mut locked = self.locked();
        if let Some(heard) = locked.get_mut(name) {
            heard.retain(|(_, knock)| !claims.contains(&knock.claim));
        }
    }

    /// Whoever knocked for this lock is not let in here.
    pub(crate) fn refuse(&self, name: &LockName) {
        self.locked().remove(name);
    }
}
