//! The lock table: one lock's claims, and the rule by which they are granted.
//!
//! A pure value with pure transitions: no I/O, no clock, no randomness. It is the engine of the
//! in-memory store, a document that a store can keep whole, and the oracle against which other
//! implementations of the same rule are tested.
//!
//! **The rule** (FAIR): a claim is granted when it is compatible with every claim ahead of it,
//! waiting ones included. It follows that no two granted claims conflict (ATOM-A): of any two, the
//! later one was compatible with the earlier one when it was granted, and claims never change
//! their mode. It also follows that whoever waits has a claim ahead that conflicts; when that one
//! leaves, the same step looks again. So nothing waits without a blocker.

use serde::{Deserialize, Serialize};

use crate::mutants::{Mutant, is_on};
use crate::{ClaimId, FencingToken, Mode, Owner, SessionId};

/// One lock's claims in their order of arrival.
///
/// ```
/// use dlock_core::table::{LockTable, Stamp};
/// use dlock_core::{ClaimId, Mode, Owner, SessionId};
///
/// let mut table = LockTable::default();
/// let stamp = Stamp { order: 1, millis: 0 };
/// let [a, b] = [1, 2].map(|number| ClaimId { session: SessionId::random(), number });
/// let owner = Owner::this_process();
/// assert!(table.request(a, Mode::Exclusive, &owner, stamp).is_some());
/// assert!(table.request(b, Mode::Exclusive, &owner, stamp).is_none());
/// let granted = table.withdraw(a, stamp);
/// assert_eq!(granted[0].id, b);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct LockTable {
    /// In the order of their tickets.
    claims: Vec<Entry>,
    /// The greatest number given out in the lock's order, for tickets and grants alike.
    last: u64,
}

/// A table as it was read, from a store that others can write to.
#[derive(Deserialize)]
struct Unchecked {
    claims: Vec<Entry>,
    last: u64,
}

/// Above it there are still more numbers than will ever be given out, and no token that does not exist.
const GREATEST_LAST: u64 = (1 << 53) - (1 << 40);

impl TryFrom<Unchecked> for LockTable {
    type Error = &'static str;

    fn try_from(Unchecked { claims, last }: Unchecked) -> Result<Self, Self::Error> {
        if last > GREATEST_LAST {
            return Err("its last number is out of range");
        }
        if !claims.is_sorted_by(|one, next| one.ticket < next.ticket) {
            return Err("its claims are not in the order of their tickets");
        }
        let newest = |entry: &Entry| entry.ticket.max(entry.token.map_or(0, FencingToken::order));
        if claims.iter().any(|entry| newest(entry) > last) {
            return Err("a number of a claim is greater than its last number");
        }
        Ok(Self { claims, last })
    }
}

/// One claim in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The claim.
    pub id: ClaimId,
    /// The mode that it asks for or holds.
    pub mode: Mode,
    /// Who made it.
    pub owner: Owner,
    /// Its place in the order of arrival.
    pub ticket: u64,
    /// Its token, once it is granted.
    pub token: Option<FencingToken>,
    /// When it was granted, or made if it still waits: milliseconds since 1970.
    pub since: u64,
}

/// When a transition happens, as the store sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The smallest number that this step may give out in the lock's order: microseconds since 1970,
    /// so that tokens go on rising when the table is lost.
    pub order: u64,
    /// Milliseconds since 1970, for [`Entry::since`].
    pub millis: u64,
}

/// A claim that a transition granted, and its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The claim.
    pub id: ClaimId,
    /// Its token.
    pub token: FencingToken,
}

/// A set of modes, as a bit for each [`Mode::index`].
#[derive(Clone, Copy, Default)]
struct Modes(u8);

impl Modes {
    fn with(self, mode: Mode) -> Self {
        Self(self.0 | 1 << mode.index())
    }

    fn all_compatible_with(self, mode: Mode) -> bool {
        Mode::ALL
            .into_iter()
            .all(|ahead| self.0 & 1 << ahead.index() == 0 || ahead.compatible(mode))
    }
}

impl LockTable {
    /// Adds a claim at the end of the queue, and says whether it is granted: its token, or `None`
    /// if it waits. A claim that is there already is left as it is, and answered the same (ONCE).
    pub fn request(
        &mut self,
        id: ClaimId,
        mode: Mode,
        owner: &Owner,
        stamp: Stamp,
    ) -> Option<FencingToken> {
        if let Some(entry) = self.get(id)
            && !is_on(Mutant::RepeatedClaim)
        {
            return entry.token;
        }
        let ticket = self.next(stamp);
        let token = self
            .admits(mode)
            .then(|| FencingToken::from_order(self.next(stamp)));
        let owner = owner.clone();
        self.claims.push(Entry {
            id,
            mode,
            owner,
            ticket,
            token,
            since: stamp.millis,
        });
        token
    }

    /// Whether a request in this mode would be granted at once.
    #[must_use]
    pub fn admits(&self, mode: Mode) -> bool {
        let looks_at = |ahead: &&Entry| ahead.token.is_some() || !is_on(Mutant::Overtaking);
        let mut ahead = self.claims.iter().filter(looks_at);
        ahead.all(|ahead| ahead.mode.compatible(mode))
    }

    /// Removes a claim, waiting or granted, and returns whom that grants. A claim that is not there
    /// changes nothing (ATOM-B).
    pub fn withdraw(&mut self, id: ClaimId, stamp: Stamp) -> Vec<Granted> {
        if is_on(Mutant::UncheckedRelease) {
            let held = self.claims.iter().position(|entry| entry.token.is_some());
            if let Some(anybody) = held {
                self.claims.remove(anybody);
            }
            return self.promote(stamp);
        }
        self.remove(|entry| entry.id == id, stamp)
    }

    /// Removes every claim of a session, and returns whom that grants.
    pub fn expire(&mut self, session: SessionId, stamp: Stamp) -> Vec<Granted> {
        let stays = is_on(Mutant::UnsweptClaims);
        self.remove(|entry| entry.id.session == session && !stays, stamp)
    }

    /// The claim, if it is there.
    #[must_use]
    pub fn get(&self, id: ClaimId) -> Option<&Entry> {
        self.claims.iter().find(|entry| entry.id == id)
    }

    /// All claims in the order of their arrival.
    pub fn claims(&self) -> impl Iterator<Item = &Entry> {
        self.claims.iter()
    }

    /// The claims ahead of this one that conflict with it: what it waits for. Empty exactly when it
    /// is granted or not there.
    pub fn blockers(&self, id: ClaimId) -> impl Iterator<Item = &Entry> {
        let place = self
            .claims
            .iter()
            .position(|entry| entry.id == id)
            .unwrap_or(0);
        let mode = self
            .claims
            .get(place)
            .map_or(Mode::Null, |entry| entry.mode);
        self.claims[..place]
            .iter()
            .filter(move |ahead| !ahead.mode.compatible(mode))
    }

    /// Whether a claim of another session behind this one waits for it.
    #[must_use]
    pub fn is_contended(&self, id: ClaimId) -> bool {
        let Some(place) = self.claims.iter().position(|entry| entry.id == id) else {
            return false;
        };
        let mode = self.claims[place].mode;
        self.claims[place + 1..]
            .iter()
            .any(|behind| behind.id.session != id.session && !behind.mode.compatible(mode))
    }

    /// The greatest number given out so far in the lock's order. A store that forgets empty tables
    /// must go on above it.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether nobody holds the lock or waits for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    fn remove(&mut self, leaves: impl Fn(&Entry) -> bool, stamp: Stamp) -> Vec<Granted> {
        let before = self.claims.len();
        self.claims.retain(|entry| !leaves(entry));
        if self.claims.len() == before {
            Vec::new()
        } else {
            self.promote(stamp)
        }
    }

    /// Grants every claim that is compatible with all ahead of it.
    fn promote(&mut self, stamp: Stamp) -> Vec<Granted> {
        let mut granted = Vec::new();
        let mut ahead = Modes::default();
        let mut last = self.last;
        for entry in &mut self.claims {
            if entry.token.is_none() && ahead.all_compatible_with(entry.mode) {
                last = stamp.order.max(last + 1);
                let token = FencingToken::from_order(last);
                entry.token = Some(token);
                entry.since = stamp.millis;
                granted.push(Granted {
                    id: entry.id,
                    token,
                });
            }
            ahead = ahead.with(entry.mode);
        }
        self.last = last;
        granted
    }

    /// The next number in the lock's order.
    fn next(&mut self, stamp: Stamp) -> u64 {
        self.last = stamp.order.max(self.last + 1);
        self.last
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
