//! A session: every operation is one change of one document.
//!
//! Read the document (or remember it), compute what the operation makes of it, and write that by
//! compare-and-set on the sequence that was read. If somebody was quicker, begin again with what they
//! wrote. Then tell whom it concerns. So the document's order of writes is the order of everything
//! that happens to the lock (ATOM-A, FAIR), and whoever releases decides who is next.
//!
//! **ONCE.** A request that was given up may still arrive. It expects a sequence from before, so any
//! later write of the document defeats it: a withdraw with an unanswered attempt writes the document
//! even if the claim is not in it, and only then returns. An operation that was given up may have
//! been committed without its messages: the next one on that lock sends them again.
//!
//! **FAIR.** Who knows the document is quicker than who has to read it. So who was overtaken asks the holder to
//! let it in: see [`knocks`](crate::knocks).
//!
//! **LIVE-A.** Whoever is in the way of a claim is examined ([`Store::examine`]) when its lease could
//! have run out: who holds the lock, and the claim next before it in the queue, so that each waiting
//! claim is looked after by the one behind it. Once one of them is dead, all the others that are in
//! the way are examined with them, so that several crashes cost one wait. A claim that was granted on its own request shows
//! that its session lived then, so for a while ([`Draft::all_fresh`]) nobody needs to look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dlock_core::mutants::{Mutant, is_on};
use dlock_core::table::Entry;
use dlock_core::{
    Attempts, Claim, ClaimId, LockName, Mailbox, Outcome, Session, SessionId, SessionTerms,
    StoreError, Wait,
};
use futures_util::future::{join_all, try_join_all};

use crate::backend::Store;
use crate::documents::{Document, LetIn, Memory, reserve};
use crate::draft::{Decision, Draft, ORDER_STEP};
use crate::error::too_large;
use crate::knocks::Knocks;
use crate::leases::{Lease, Life, Sight};
use crate::link::{Ask, Put};
use crate::pace::Pace;
use crate::pushes::{self, Message, Task, forward};
use crate::work::Work;

/// A waiting claim looks this often at who is in the way: a holder may have handed the lock to somebody
/// who is dead, and nobody tells.
const LOOK: Duration = Duration::from_secs(2);
/// How much later than the one before it each claim in the queue looks: the first one frees what the
/// dead have left, and the others find it done.
const RANK: Duration = Duration::from_millis(5);
const LAST_RANK: u32 = 40;

/// What is answered to a claim that somebody else has let in. Who is in the way is looked at in time to
/// find out if it has died (LIVE-A): a TTL is a second at least.
const PLACED: Outcome = Outcome::Waiting {
    look_after: Some(Duration::from_secs(1)),
};

/// A session on JetStream.
#[derive(Debug)]
pub(crate) struct JetStreamSession {
    pub(crate) store: Arc<Store>,
    lease: Lease,
    pub(crate) memory: Arc<Memory>,
    knocks: Arc<Knocks>,
    pub(crate) pace: Pace,
    mailbox: Mailbox,
    _pushes: Task,
}

impl JetStreamSession {
    pub(crate) async fn open(
        store: &Arc<Store>,
        terms: &SessionTerms,
        mailbox: Mailbox,
    ) -> Result<Self, StoreError> {
        // Before the attempt is given up, so that the error says what is wrong.
        store.confirm_bucket().await?;
        // First of all, so that no message is missed.
        let messages = store.link.subscribe(store.layout.channel(terms.id)).await?;
        let memory = Arc::new(Memory::default());
        let knocks = Arc::new(Knocks::default());
        let forward = forward(
            Arc::clone(store),
            messages,
            terms.id,
            Arc::clone(&memory),
            Arc::clone(&knocks),
            mailbox.clone(),
        );
        let session = Self {
            store: Arc::clone(store),
            lease: Lease::new(terms.id, terms.owner.clone(), terms.ttl),
            memory,
            knocks,
            pace: Pace::default(),
            mailbox,
            _pushes: Task::spawn(forward),
        };
        session.lease.renew(store).await?;
        Ok(session)
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.lease.ttl
    }

    pub(crate) fn id(&self) -> SessionId {
        self.lease.id
    }

    /// Performs an operation: the loop that the module's text describes.
    async fn perform(&self, name: &LockName, work: Work<'_>) -> Result<Outcome, StoreError> {
        let unsettled = self.memory.is_unsettled(name);
        let hint = match unsettled {
            true => None,
            false => (self.memory.seen(name)).filter(|seen| work.trusts(&seen.table, self.id())),
        };
        let mut is_hint = hint.is_some();
        let mut document = match hint {
            Some(document) => document,
            None if unsettled => self.read(name, Ask::Leader).await?,
            None => match self.begin(name, work).await? {
                LetIn::Seen(document) => document,
                LetIn::Placed => return Ok(PLACED),
            },
        };
        let mut collisions = 0;
        loop {
            if unsettled {
                let messages = pushes::to_holders(&document.table);
                self.send(name, &document, messages).await;
            }
            let mut draft = Draft::new(&document, self.store.time.stamp());
            // Before anything of its own: they came first.
            draft.admit(&self.knocks.at(name, &document));
            let outcome = match self.decide(work, &mut draft, is_hint).await? {
                Decision::Read => {
                    document = self.read(name, Ask::Leader).await?;
                    is_hint = false;
                    continue;
                }
                Decision::Done(outcome) => outcome,
                Decision::Write(outcome) => {
                    match self.write(name, &document, &draft, work).await? {
                        Put::Stored(sequence) => {
                            document = draft.stored(sequence);
                            self.memory.see(name, &document);
                            self.knocks.answered(name, &draft.admitted);
                            let told = pushes::to_others(
                                &document.table,
                                &draft.granted,
                                &draft.admitted,
                                work.claim(),
                            );
                            self.send(name, &document, told).await;
                            outcome
                        }
                        Put::InFlight => {
                            work.pause(&mut collisions, &document, self.pace.write())
                                .await;
                            continue;
                        }
                        Put::Overtaken => {
                            let again = self.overtaken(name, work, document, &mut collisions);
                            document = match again.await? {
                                LetIn::Seen(document) => document,
                                LetIn::Placed => return Ok(PLACED),
                            };
                            is_hint = false;
                            continue;
                        }
                    }
                }
            };
            self.memory.settle(name, false);
            if let (Some(claim), Outcome::Granted { .. }) = (work.claim(), outcome)
                && document.table.is_contended(claim)
            {
                self.mailbox.contended(claim);
            }
            return Ok(outcome);
        }
    }

    async fn write(
        &self,
        name: &LockName,
        document: &Document,
        draft: &Draft,
        work: Work<'_>,
    ) -> Result<Put, StoreError> {
        let subject = self.store.layout.lock(name);
        let (payload, ttl) = draft.written()?;
        let most = self.store.link.most_bytes().await?;
        if payload.len() + reserve(&draft.table) > most {
            if !draft.admitted.is_empty() {
                // Again, without them: they will see for themselves that there is no room.
                self.knocks.refuse(name);
                return Ok(Put::InFlight);
            }
            if matches!(work, Work::Request(..) | Work::Replace(..)) {
                return Err(too_large());
            }
        }
        let unsettled = self.memory.is_unsettled(name);
        // Until there is an answer, and the messages are sent.
        self.memory.settle(name, true);
        let link = &self.store.link;
        let sent = Instant::now();
        let put = link.put(&subject, document.sequence, payload, ttl).await;
        if put.is_ok() {
            self.pace.wrote(sent.elapsed());
        }
        if matches!(&put, Ok(Put::Overtaken | Put::InFlight))
            || matches!(&put, Err(fault) if fault.never_took_effect())
        {
            self.memory.settle(name, unsettled);
        }
        put
    }

    async fn decide(
        &self,
        work: Work<'_>,
        draft: &mut Draft,
        is_hint: bool,
    ) -> Result<Decision, StoreError> {
        match work {
            Work::Request(claim, wait) => self.decide_request(claim, wait, draft, is_hint).await,
            Work::Look(claim) => {
                if draft.table.get(claim.id).is_none() {
                    // Nobody takes out a claim of a session that lives.
                    self.lease.confirm(&self.store).await?;
                    return Ok(Decision::Done(Outcome::Absent));
                }
                let look_after = self.free(draft, claim.id, Sight::Fresh).await?;
                Ok(draft.decided(claim.id, look_after))
            }
            Work::Replace(leaving, claim) => {
                self.take_out(leaving, draft);
                let entered = self.decide_request(claim, Wait::InTurn, draft, is_hint);
                Ok(match entered.await? {
                    // Only a write proves that the first one has gone (ATOM-B).
                    Decision::Done(outcome) => Decision::Write(outcome),
                    decision => decision,
                })
            }
            Work::Withdraw(claim, attempts) => {
                self.take_out(claim, draft);
                Ok(match attempts {
                    _ if draft.changed => Decision::Write(Outcome::Absent),
                    _ if is_hint => Decision::Read,
                    Attempts::Unanswered if is_on(Mutant::ForgottenWithdraw) => {
                        Decision::Done(Outcome::Absent)
                    }
                    // What may still arrive expects an older document (ONCE).
                    Attempts::Unanswered => Decision::Write(Outcome::Absent),
                    // It may be there all the same: a leader that was cut off and does not know it
                    // answers reads, too. Only a write proves (ATOM-B).
                    Attempts::Answered if self.may_be_there(claim) => {
                        Decision::Write(Outcome::Absent)
                    }
                    Attempts::Answered => Decision::Done(Outcome::Absent),
                })
            }
            Work::Leave(_) => {
                draft.expire(self.id());
                Ok(match draft.changed {
                    true => Decision::Write(Outcome::Absent),
                    false if is_hint => Decision::Read,
                    false => Decision::Done(Outcome::Absent),
                })
            }
        }
    }

    fn take_out(&self, claim: &Claim, draft: &mut Draft) {
        draft.withdraw(claim.id);
        if let Some(seen) = self.memory.has_knocked(claim.id) {
            // Whoever heard it may still let it in.
            draft.void(seen);
        }
    }

    async fn decide_request(
        &self,
        claim: &Claim,
        wait: Wait,
        draft: &mut Draft,
        is_hint: bool,
    ) -> Result<Decision, StoreError> {
        let known = draft.table.get(claim.id).map(|entry| entry.token);
        let known = known.filter(|_| !is_on(Mutant::RepeatedClaim));
        match known {
            Some(Some(token)) => return Ok(Decision::Done(Outcome::Granted { token })),
            Some(None) if is_hint => return Ok(Decision::Read),
            Some(None) => {}
            None => {
                if let Some(token) = draft.request(claim) {
                    return Ok(Decision::Write(Outcome::Granted { token }));
                }
                if wait == Wait::Never && is_hint {
                    return Ok(Decision::Read);
                }
            }
        }
        if wait == Wait::InTurn
            && let Some(fresh) = draft.all_fresh(claim.id)
        {
            return Ok(draft.decided(claim.id, fresh));
        }
        let sight = match wait {
            Wait::InTurn => Sight::Remembered,
            // It does not look a second time.
            Wait::Never => Sight::Fresh,
        };
        let look_after = self.free(draft, claim.id, sight).await?;
        Ok(match draft.decided(claim.id, look_after) {
            // Nothing is written, whoever else was freed: they find that themselves.
            Decision::Write(Outcome::Waiting { .. }) if wait == Wait::Never && known.is_none() => {
                Decision::Done(Outcome::Absent)
            }
            decision => decision,
        })
    }

    /// Whether the claim was sent and not taken out, by a session that is not over.
    fn may_be_there(&self, claim: &Claim) -> bool {
        self.lease.stands().is_ok() && self.memory.is_open(&claim.name, claim.id)
    }

    /// Takes out what dead sessions have left in the claim's way (LIVE-A), and says when to look again
    /// if it still waits.
    async fn free(
        &self,
        draft: &mut Draft,
        claim: ClaimId,
        sight: Sight,
    ) -> Result<Duration, StoreError> {
        let mut alive = BTreeMap::from([(self.id(), LOOK)]);
        let mut somebody_died = false;
        loop {
            let blockers: Vec<&Entry> = draft.table.blockers(claim).collect();
            if blockers.is_empty() {
                return Ok(LOOK);
            }
            let rank = blockers
                .iter()
                .filter(|ahead| ahead.token.is_none())
                .count();
            let holders = blockers.iter().any(|ahead| ahead.token.is_some());
            // The one before it is looked after, too: by nobody else, perhaps.
            let before = blockers.iter().rfind(|ahead| ahead.id.session != self.id());
            let before = before.map(|ahead| ahead.id);
            let decisive: BTreeSet<SessionId> = blockers
                .iter()
                .filter(|ahead| {
                    let holds = ahead.token.is_some();
                    holds || !holders || somebody_died || Some(ahead.id) == before
                })
                .map(|ahead| ahead.id.session)
                .collect();
            let unknown: Vec<SessionId> = decisive
                .iter()
                .filter(|id| !alive.contains_key(id))
                .copied()
                .collect();
            if unknown.is_empty() {
                let soonest = decisive.iter().filter_map(|id| alive.get(id)).min();
                let soonest = soonest.copied().unwrap_or(LOOK).min(LOOK);
                let rank = u32::try_from(rank).unwrap_or(LAST_RANK).min(LAST_RANK);
                return Ok(soonest + RANK * rank);
            }
            let examined = unknown
                .iter()
                .map(|id| self.store.examine(*id, self.id(), sight));
            for (id, life) in unknown.iter().zip(try_join_all(examined).await?) {
                match life {
                    Life::Alive(left) => {
                        alive.insert(*id, left);
                    }
                    Life::Dead => {
                        draft.expire(*id);
                        somebody_died = true;
                    }
                }
            }
        }
    }

    /// Tells whom a committed document concerns.
    async fn send(
        &self,
        name: &LockName,
        document: &Document,
        messages: BTreeMap<SessionId, Message>,
    ) {
        for (session, message) in messages {
            if session == self.id() {
                for (claim, token) in message.granted {
                    self.mailbox.granted(claim, token);
                }
                for claim in message.contended {
                    self.mailbox.contended(claim);
                }
                continue;
            }
            let most = self.store.link.most_bytes().await.unwrap_or(0);
            if let Ok(text) = message.written(name, document, most) {
                let channel = self.store.layout.channel(session);
                self.store.link.tell(channel, text).await;
            }
        }
    }
}

#[async_trait]
impl Session for JetStreamSession {
    async fn renew(&self) -> Result<Duration, StoreError> {
        self.lease.renew(&self.store).await?;
        Ok(self.ttl())
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        self.lease.stands()?;
        if self.memory.is_withdrawn(claim.id) && !is_on(Mutant::ForgottenWithdraw) {
            return Ok(Outcome::Absent);
        }
        let first = self.memory.open(&claim.name, claim.id);
        let outcome = self.perform(&claim.name, Work::Request(claim, wait)).await;
        let nothing_was_done = match &outcome {
            Ok(outcome) => *outcome == Outcome::Absent,
            Err(fault) => fault.never_took_effect(),
        };
        if !nothing_was_done || !first {
            return outcome;
        }
        if self.memory.has_knocked(claim.id).is_none() {
            self.memory.close(&claim.name, claim.id);
            return outcome;
        }
        // Whoever heard it may let it in all the same.
        let withdrawn = self.withdraw(claim, Attempts::Answered).await;
        withdrawn.map_err(|fault| {
            StoreError::ambiguous("somebody was asked to let the claim in").because(fault)
        })?;
        outcome
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        self.lease.stands()?;
        self.perform(&claim.name, Work::Look(claim)).await
    }

    fn pushes_contended(&self) -> bool {
        true
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        if attempts == Attempts::Unanswered {
            self.memory.withdraw(claim.id);
        }
        self.perform(&claim.name, Work::Withdraw(claim, attempts))
            .await?;
        self.memory.close(&claim.name, claim.id);
        Ok(())
    }

    fn replaces(&self) -> bool {
        true
    }

    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        self.lease.stands()?;
        self.memory.open(&claim.name, claim.id);
        let work = Work::Replace(leaving, claim);
        let outcome = self.perform(&claim.name, work).await;
        match &outcome {
            Ok(_) => self.memory.close(&leaving.name, leaving.id),
            Err(fault) if fault.never_took_effect() => self.memory.close(&claim.name, claim.id),
            Err(_) => {}
        }
        outcome
    }

    fn order_step(&self) -> u64 {
        ORDER_STEP
    }

    async fn close(&self) -> Result<(), StoreError> {
        // Marked first: what arrives late, or cannot be freed here, is freed by whoever finds it.
        let ended = self.lease.end(&self.store).await;
        let names = self.memory.with_open_claims();
        let left = names
            .iter()
            .map(|name| self.perform(name, Work::Leave(self.id())));
        let left: Result<Vec<_>, _> = join_all(left).await.into_iter().collect();
        ended.and(left.map(drop))
    }
}
