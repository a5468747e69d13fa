//! A document in the making: what an operation does to a lock's table, and what follows from it.
//!
//! Pure: no I/O, and the time comes from outside.

use std::sync::Arc;
use std::time::Duration;

use dlock_core::table::{Granted, LockTable, Stamp};
use dlock_core::{Claim, ClaimId, FencingToken, Outcome, SessionId, StoreError};

use crate::documents::{Document, written};
use crate::knocks::Knock;

/// Who was granted a lock on its own request need not be looked at for so long: its TTL is a second at
/// least, and the slack is longer than another one.
const FRESH: Duration = Duration::from_secs(2);
/// How far apart the numbers of two steps in a lock's order are, at least.
pub(crate) const ORDER_STEP: u64 = 16;

/// What an operation makes of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision {
    /// It cannot be told from what is remembered: read the document.
    Read,
    /// Nothing is to be written.
    Done(Outcome),
    /// This is the outcome once the draft is committed.
    Write(Outcome),
}

/// A document in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The document's own until it is changed.
    pub(crate) table: Arc<LockTable>,
    /// Up to where knocks count no more.
    void: u64,
    stamp: Stamp,
    /// Whom it lets in who has knocked.
    pub(crate) admitted: Vec<ClaimId>,
    /// Whom it grants, other than who asks.
    pub(crate) granted: Vec<Granted>,
    /// Whether it differs from the document that it was made from.
    pub(crate) changed: bool,
}

impl Draft {
    pub(crate) fn new(document: &Document, stamp: Stamp) -> Self {
        Self {
            table: Arc::clone(&document.table),
            void: document.void,
            stamp,
            admitted: Vec::new(),
            granted: Vec::new(),
            changed: false,
        }
    }

    fn table_mut(&mut self) -> &mut LockTable {
        Arc::make_mut(&mut self.table)
    }

    /// For the next step: above all earlier ones, so that each grant has its tokens for hand-overs.
    fn stamp(&self) -> Stamp {
        Stamp {
            order: self.stamp.order.max(self.table.last() + ORDER_STEP),
            ..self.stamp
        }
    }

    pub(crate) fn request(&mut self, claim: &Claim) -> Option<FencingToken> {
        self.changed = true;
        let stamp = self.stamp();
        (self.table_mut()).request(claim.id, claim.mode, &claim.owner, stamp)
    }

    /// Lets those in who have knocked.
    pub(crate) fn admit(&mut self, knocks: &[Knock]) {
        for knock in knocks {
            let Knock {
                claim, mode, owner, ..
            } = knock;
            let stamp = self.stamp();
            let token = self.table_mut().request(*claim, *mode, owner, stamp);
            self.granted
                .extend(token.map(|token| Granted { id: *claim, token }));
            self.admitted.push(*claim);
            self.changed = true;
        }
    }

    /// Whatever this claim has knocked for, having seen a document with this sequence, is void (ONCE).
    pub(crate) fn void(&mut self, seen: u64) {
        self.void = seen.max(self.void);
        self.changed = true;
    }

    pub(crate) fn written(&self) -> Result<(Vec<u8>, Option<u64>), StoreError> {
        written(&self.table, self.void)
    }

    pub(crate) fn withdraw(&mut self, claim: ClaimId) {
        self.leave(|table, stamp| table.withdraw(claim, stamp));
    }

    pub(crate) fn expire(&mut self, session: SessionId) {
        self.leave(|table, stamp| table.expire(session, stamp));
    }

    fn leave(&mut self, leave: impl FnOnce(&mut LockTable, Stamp) -> Vec<Granted>) {
        let (before, stamp) = (self.table.claims().count(), self.stamp());
        let granted = leave(self.table_mut(), stamp);
        self.changed |= self.table.claims().count() != before;
        self.granted.extend(granted);
    }

    /// The claim's state in the draft, and whether that has to be written first.
    pub(crate) fn decided(&self, claim: ClaimId, look_after: Duration) -> Decision {
        let outcome = match self.table.get(claim).map(|entry| entry.token) {
            None => Outcome::Absent,
            Some(Some(token)) => Outcome::Granted { token },
            Some(None) => Outcome::Waiting {
                look_after: Some(look_after),
            },
        };
        match self.changed {
            true => Decision::Write(outcome),
            false => Decision::Done(outcome),
        }
    }

    /// For how long nobody needs to look at who holds what the claim waits for: they have just been
    /// granted it on their own request. A grant by somebody else's release proves nothing of its
    /// session; its number does not follow the ticket.
    pub(crate) fn all_fresh(&self, claim: ClaimId) -> Option<Duration> {
        let holders = self
            .table
            .blockers(claim)
            .filter(|ahead| ahead.token.is_some());
        let left = holders.map(|holder| {
            let on_request = holder
                .token
                .is_some_and(|token| token.order() == holder.ticket + 1);
            let age = Duration::from_millis(self.stamp.millis.saturating_sub(holder.since));
            on_request
                .then(|| FRESH.saturating_sub(age))
                .filter(|left| !left.is_zero())
        });
        left.min()?
    }

    pub(crate) fn stored(&self, sequence: u64) -> Document {
        Document {
            sequence,
            table: Arc::clone(&self.table),
            void: self.void,
        }
    }
}

#[cfg(test)]
mod tests {
    use dlock_core::{LockName, Mode, Owner};

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn at(millis: u64) -> Stamp {
        Stamp {
            order: millis * 1000,
            millis,
        }
    }

    fn claim(session: u128, mode: Mode) -> Claim {
        Claim {
            id: ClaimId {
                session: SessionId::from(session),
                number: 1,
            },
            name: LockName::new("n").unwrap(),
            mode,
            owner: Owner::this_process(),
        }
    }

    /// LIVE-A: only who was granted on its own request, a moment ago, is known to have lived then.
    #[test]
    fn a_grant_on_request_is_fresh_for_a_while_and_one_by_a_release_is_not() {
        let [one, two, three] = [1, 2, 3].map(|session| claim(session, Mode::Exclusive));
        let mut draft = Draft::new(&Document::default(), at(NOW));
        assert!(draft.request(&one).is_some());
        assert!(draft.request(&two).is_none());
        assert_eq!(draft.all_fresh(two.id), Some(FRESH));
        let mut later = Draft::new(&draft.stored(1), at(NOW + 500));
        assert_eq!(
            later.all_fresh(two.id),
            Some(FRESH - Duration::from_millis(500))
        );
        let old = Draft::new(&draft.stored(1), at(NOW + 2000));
        assert_eq!(old.all_fresh(two.id), None);
        later.withdraw(one.id);
        assert_eq!(later.granted.len(), 1);
        later.request(&three);
        assert_eq!(later.all_fresh(three.id), None);
    }

    /// FENCE: a grant has room for hand-overs within its process, also where the clock stands still.
    #[test]
    fn grants_are_so_far_apart_as_the_core_is_told() {
        let claims: Vec<Claim> = (1..=4).map(|n| claim(n, Mode::Exclusive)).collect();
        let mut draft = Draft::new(&Document::default(), at(NOW));
        let mut orders = vec![draft.request(&claims[0]).unwrap().order()];
        for claim in &claims[1..] {
            assert!(draft.request(claim).is_none());
        }
        for claim in &claims[..3] {
            draft.withdraw(claim.id);
            orders.push(draft.granted.pop().unwrap().token.order());
        }
        let apart = orders.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(apart.min() >= Some(ORDER_STEP), "{orders:?}");
    }

    /// ONCE: nothing is written that changes nothing.
    #[test]
    fn a_draft_knows_whether_it_changed_anything() {
        let (one, two) = (claim(1, Mode::Exclusive), claim(2, Mode::Exclusive));
        let mut draft = Draft::new(&Document::default(), at(NOW));
        draft.withdraw(one.id);
        draft.expire(one.id.session);
        let decided = draft.decided(one.id, FRESH);
        assert!(matches!(decided, Decision::Done(Outcome::Absent)));
        draft.request(&one);
        let decided = draft.decided(one.id, FRESH);
        assert!(matches!(decided, Decision::Write(Outcome::Granted { .. })));
        let mut next = Draft::new(&draft.stored(1), at(NOW));
        let decided = next.decided(one.id, FRESH);
        assert!(matches!(decided, Decision::Done(Outcome::Granted { .. })));
        next.request(&two);
        next.expire(one.id.session);
        assert_eq!(next.granted[0].id, two.id);
    }
}
