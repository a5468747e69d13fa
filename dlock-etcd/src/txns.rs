//! The transactions: what is asked of the store in one atomic step, which Raft has committed when it is
//! answered (COMMITTED).
//!
//! Nothing here is stored but claims, marks and sessions. Whether a claim is granted is *derived*, by
//! the rule of [`LockTable`](dlock_core::table::LockTable): it is, if no claim in a conflicting mode
//! has a smaller create revision (ATOM-A, FAIR).

use dlock_core::mutants::{Mutant, is_on};
use dlock_core::{Claim, LockName, Mode, SessionId, StoreError, Wait};
use etcd_client::{
    Compare, CompareOp, DeleteOptions, Event, EventType, GetOptions, GetResponse, KeyValue,
    PutOptions, ResponseHeader, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use crate::base;
use crate::connect::{gets, only};
use crate::keys::{Layout, conflicting};
use crate::record::Record;

/// How many claims behind one are read, at most, in each mode. Among so many there is one of another session,
/// but for programs that ask for many claims on one lock from one session.
const MOST_BEHIND: i64 = 64;

/// What the transactions of one session have in common.
#[derive(Debug)]
pub(crate) struct Txns {
    pub(crate) layout: Layout,
    pub(crate) session: SessionId,
    pub(crate) lease: i64,
    /// The create revision of the session's key. One that was deleted and made anew, or that a
    /// restored backup does not have, is another session.
    pub(crate) opened: i64,
}

/// What a request was answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was written, and nothing that conflicts is ahead.
    Free { base: Option<u64> },
    /// It was written, and waits.
    Queued { base: Option<u64>, ahead: Ahead },
    /// Nothing was written.
    Nothing(Found),
}

/// The conflicting claims ahead of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// The key of the last of them: whoever else is ahead is ahead of that one too.
    pub(crate) nearest: Vec<u8>,
    /// When it was created: what is there later under the same key is another claim.
    pub(crate) ticket: i64,
    /// Whether it is the only one.
    pub(crate) sole: bool,
    /// The revision as of which it was there.
    pub(crate) seen: i64,
}

impl Ahead {
    fn is_there(&self) -> Compare {
        Compare::create_revision(self.nearest.clone(), CompareOp::Equal, self.ticket)
    }

    /// Whether these events of its key are its end, and not that of an earlier claim that had the key: a member
    /// that is behind may tell of that, too.
    pub(crate) fn ends_in(&self, events: &[Event]) -> bool {
        events.iter().any(|event| {
            let revision = event.kv().map_or(0, KeyValue::mod_revision);
            event.event_type() == EventType::Delete && revision > self.ticket
        })
    }
}

/// What there is of a claim.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) own: Option<KeyValue>,
    pub(crate) is_withdrawn: bool,
    pub(crate) session_stands: bool,
    pub(crate) base: Option<KeyValue>,
}

impl Txns {
    /// The session's lease stands, and the claim is neither there nor withdrawn (ONCE).
    fn may_enter(&self, claim: &Claim, key: &str) -> Vec<Compare> {
        let mut conditions = vec![self.session_stands()];
        if !is_on(Mutant::RepeatedClaim) {
            conditions.push(absent(key));
        }
        if !is_on(Mutant::ForgottenWithdraw) {
            conditions.push(absent(self.layout.withdrawn(claim.id)));
        }
        conditions
    }

    fn session_stands(&self) -> Compare {
        let key = self.layout.session(self.session);
        Compare::create_revision(key, CompareOp::Equal, self.opened)
    }

    /// Writes the claim, and raises the base to `proposed` if that is more.
    fn place(&self, key: &str, record: &Record, proposed: u64) -> Result<TxnOp, StoreError> {
        let base = self.layout.base();
        let lease = PutOptions::new().with_lease(self.lease);
        let leased = || Some(lease.clone()).filter(|_| !is_on(Mutant::UnsweptClaims));
        let raised = record.clone().with_base(proposed).text()?;
        let less = Compare::value(base.clone(), CompareOp::Less, base::text(proposed));
        let txn = Txn::new()
            .when([less])
            .and_then([
                TxnOp::put(base.clone(), base::text(proposed), None),
                TxnOp::put(key, raised, leased()),
            ])
            .or_else([
                TxnOp::put(key, record.text()?, leased()),
                TxnOp::get(base, None),
            ]);
        Ok(TxnOp::txn(txn))
    }

    /// A request: reads what conflicts and is ahead, and then writes the claim; the count of each range
    /// tells whether there is more than one. If the claim may not wait, it is written only where nothing
    /// is ahead. Whatever becomes of it, the claim that it replaces is taken out first, so that the reads do
    /// not see it any more.
    pub(crate) fn request(
        &self,
        leaving: Option<&str>,
        (claim, key): (&Claim, &str),
        wait: Wait,
        record: &Record,
        proposed: u64,
    ) -> Result<Txn, StoreError> {
        let leaves = || leaving.map(|leaving| self.take_out(&claim.name, leaving));
        let modes = conflicting(claim.mode).map(|mode| self.layout.mode(&claim.name, mode));
        let mut conditions = self.may_enter(claim, key);
        let mut steps = Vec::from_iter(leaves());
        match wait {
            Wait::InTurn => {
                let nearest = |mode| TxnOp::get(mode, Some(newest().with_limit(1)));
                steps.extend(modes.map(nearest));
            }
            Wait::Never => {
                conditions.extend(modes.map(|mode| absent(mode).with_prefix()));
            }
        }
        steps.push(self.place(key, record, proposed)?);
        let otherwise = leaves().into_iter().chain(self.find(claim, key));
        Ok(Txn::new()
            .when(conditions)
            .and_then(steps)
            .or_else(otherwise.collect::<Vec<_>>()))
    }

    /// Reads the answer to a request that proposed this base.
    pub(crate) fn answer(&self, answer: &TxnResponse, proposed: u64) -> Answer {
        let answers = answer.op_responses();
        if !answer.succeeded() {
            return Answer::Nothing(self.found(&answers));
        }
        let base = placed(&answers, proposed);
        match ahead(&gets(&answers), revision(answer), |range| range.count()) {
            Some(ahead) => Answer::Queued { base, ahead },
            None => Answer::Free { base },
        }
    }

    /// The reads that [`found`](Self::found) reads the answers of.
    fn find(&self, claim: &Claim, key: &str) -> Vec<TxnOp> {
        let keys_only = || Some(GetOptions::new().with_keys_only());
        vec![
            TxnOp::get(key, None),
            TxnOp::get(self.layout.withdrawn(claim.id), keys_only()),
            TxnOp::get(self.layout.session(self.session), keys_only()),
            TxnOp::get(self.layout.base(), None),
        ]
    }

    /// What there is of a claim of which nothing is known.
    pub(crate) fn search(&self, claim: &Claim, key: &str) -> Txn {
        Txn::new().and_then(self.find(claim, key))
    }

    pub(crate) fn found(&self, answers: &[TxnOpResponse]) -> Found {
        let mut found = gets(answers).into_iter().map(|answer| only(&answer));
        let mut next = || found.next().flatten();
        Found {
            own: next(),
            is_withdrawn: next().is_some(),
            session_stands: next().is_some_and(|key| key.create_revision() == self.opened),
            base: next(),
        }
    }

    /// Reads what is ahead of a claim with this ticket, and whether the claim and the session are there. As
    /// long as the nearest that is known to be ahead is still there, it is still the nearest: claims come in at
    /// the end. Then the server need not read the queue.
    pub(crate) fn look(
        &self,
        (claim, key): (&Claim, &str),
        ticket: i64,
        known: Option<&Ahead>,
    ) -> Txn {
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let own = [
            TxnOp::get(key, keys_only()),
            TxnOp::get(self.layout.session(self.session), keys_only()),
        ];
        // Two of each, because the count includes those behind.
        let nearest = |mode: Mode| {
            let options = newest().with_limit(2).with_max_create_revision(ticket - 1);
            TxnOp::get(self.layout.mode(&claim.name, mode), Some(options))
        };
        let queue = own.clone().into_iter();
        let queue = queue.chain(conflicting(claim.mode).map(nearest));
        let queue = queue.collect::<Vec<_>>();
        match known {
            Some(ahead) => Txn::new()
                .when([ahead.is_there()])
                .and_then(own)
                .or_else(queue),
            None => Txn::new().and_then(queue),
        }
    }

    /// Reads the answer to a look: whether the session and the claim are there, and what is ahead.
    pub(crate) fn looked(
        &self,
        answer: &TxnResponse,
        ticket: i64,
        known: Option<Ahead>,
    ) -> (bool, bool, Option<Ahead>) {
        let answers = gets(&answer.op_responses());
        let created = |place: usize| {
            let key = answers.get(place).and_then(only);
            key.map(|key| key.create_revision())
        };
        let (claim, session) = (created(0), created(1));
        let ahead = match known {
            Some(known) if answer.succeeded() => Some(Ahead {
                seen: revision(answer),
                ..known
            }),
            _ => {
                let ranges = answers.get(2..).unwrap_or_default();
                let two = |range: &GetResponse| i64::try_from(range.kvs().len()).unwrap_or(2);
                ahead(ranges, revision(answer), two)
            }
        };
        (session == Some(self.opened), claim == Some(ticket), ahead)
    }

    /// Reads whether the session is there, and the claims behind the one with this ticket that conflict
    /// with it.
    pub(crate) fn behind(&self, claim: &Claim, ticket: i64) -> Txn {
        let session = self.layout.session(self.session);
        let keys_only = GetOptions::new().with_keys_only();
        let mut reads = vec![TxnOp::get(session, Some(keys_only))];
        let range = |mode: Mode| {
            let options = GetOptions::new()
                .with_prefix()
                .with_keys_only()
                .with_min_create_revision(ticket + 1)
                .with_limit(MOST_BEHIND);
            TxnOp::get(self.layout.mode(&claim.name, mode), Some(options))
        };
        reads.extend(conflicting(claim.mode).map(range));
        Txn::new().and_then(reads)
    }

    /// Reads the answer to that: whether the session stands, and whether any of them is another session's.
    pub(crate) fn seen_behind(&self, claim: &Claim, answer: &TxnResponse) -> (bool, bool) {
        let answers = gets(&answer.op_responses());
        let session = answers.first().and_then(only);
        let stands = session.is_some_and(|key| key.create_revision() == self.opened);
        let mut ranges = answers.iter().skip(1);
        let is_contended = ranges.any(|range| {
            // If they are all its own, it is not known what the rest is.
            range.more() || (range.kvs().iter()).any(|key| self.is_rival(claim, key.key()))
        });
        (stands, is_contended)
    }

    /// Whether this is the key of a claim of another session that conflicts with this one.
    pub(crate) fn is_rival(&self, claim: &Claim, key: &[u8]) -> bool {
        let mut modes = conflicting(claim.mode).map(|mode| self.layout.mode(&claim.name, mode));
        modes.any(|mode| key.starts_with(mode.as_bytes())) && !self.is_own(key)
    }

    /// Reads whether the session's key is there, and whether this claim is.
    pub(crate) fn peek(&self, ahead: Option<&Ahead>) -> Txn {
        let keys_only = GetOptions::new().with_keys_only();
        let session = TxnOp::get(self.layout.session(self.session), Some(keys_only));
        let conditions: Vec<Compare> = ahead.map(Ahead::is_there).into_iter().collect();
        Txn::new()
            .when(conditions)
            .and_then([session.clone()])
            .or_else([session])
    }

    /// Reads the answer to a peek: whether the session stands, and whether the claim is there.
    pub(crate) fn peeked(&self, answer: &TxnResponse) -> (bool, bool) {
        let session = gets(&answer.op_responses()).first().and_then(only);
        let stands = session.is_some_and(|key| key.create_revision() == self.opened);
        (stands, answer.succeeded())
    }

    /// Whether this is the key of a claim of this session.
    pub(crate) fn is_own(&self, key: &[u8]) -> bool {
        let slot = self.layout.read(key);
        slot.is_some_and(|(_, _, slot)| slot.session == self.session)
    }

    /// Takes the claim out, and nothing else (ATOM-B).
    pub(crate) fn withdraw(&self, claim: &Claim, key: &str) -> Txn {
        Txn::new().and_then([self.take_out(&claim.name, key)])
    }

    fn take_out(&self, name: &LockName, key: &str) -> TxnOp {
        if is_on(Mutant::UncheckedRelease) {
            let everything = DeleteOptions::new().with_prefix();
            return TxnOp::delete(self.layout.lock(name), Some(everything));
        }
        TxnOp::delete(key, None)
    }

    /// The same, if it has a key, and leaves a mark that lives as long as the session (ONCE).
    pub(crate) fn withdraw_for_good(&self, claim: &Claim, key: Option<&str>) -> Txn {
        let lease = PutOptions::new().with_lease(self.lease);
        let mark = TxnOp::put(self.layout.withdrawn(claim.id), "", Some(lease));
        let taken_out = key.map(|key| self.take_out(&claim.name, key));
        let steps = taken_out.into_iter().chain([mark]).collect::<Vec<_>>();
        Txn::new().when([self.session_stands()]).and_then(steps)
    }
}

pub(crate) fn absent(key: impl Into<Vec<u8>>) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, 0)
}

/// The keys of a range, the newest first.
fn newest() -> GetOptions {
    GetOptions::new()
        .with_prefix()
        .with_keys_only()
        .with_sort(SortTarget::Create, SortOrder::Descend)
}

/// The base of a claim that was just written: the proposed one where that raised it, otherwise the one
/// that was found.
fn placed(answers: &[TxnOpResponse], proposed: u64) -> Option<u64> {
    let Some(TxnOpResponse::Txn(place)) = answers.last() else {
        return None;
    };
    if place.succeeded() {
        return Some(proposed);
    }
    let found = gets(&place.op_responses());
    base::read(only(found.first()?)?.value())
}

fn revision(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, ResponseHeader::revision)
}

/// The nearest of the claims in these ranges, each with the newest first, which were read at this revision.
fn ahead(ranges: &[GetResponse], seen: i64, count: impl Fn(&GetResponse) -> i64) -> Option<Ahead> {
    let firsts = ranges.iter().filter_map(|range| range.kvs().first());
    let nearest = firsts.max_by_key(|key| key.create_revision())?;
    Some(Ahead {
        nearest: nearest.key().to_vec(),
        ticket: nearest.create_revision(),
        sole: ranges.iter().map(count).sum::<i64>() == 1,
        seen,
    })
}
