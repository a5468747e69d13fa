//! A session's claims in the store: requested, looked at, withdrawn.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dlock_core::{
    Attempts, Claim, FencingToken, LockName, SessionTerms, StoreError, StoreErrorKind, Wait,
    wall_clock,
};
use etcd_client::{
    GetOptions, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use crate::base;
use crate::connect::{Format, gets, only};
use crate::error::is_compacted;
use crate::history::History;
use crate::keys::{Layout, Slot};
use crate::link::Link;
use crate::record::{Record, strange};
use crate::slots::Slots;
use crate::txns::{Ahead, Answer, Found, Txns, absent};

#[cfg(test)]
use dlock_core::SessionId;

#[derive(Debug)]
pub(crate) struct Claims {
    link: Arc<Link>,
    txns: Txns,
    history: History,
    /// The greatest base that was seen.
    base: AtomicU64,
    /// The greatest revision that the watches have told of.
    heard: AtomicI64,
    book: Mutex<Book>,
}

/// What a session knows of its claims.
#[derive(Debug, Default)]
struct Book {
    /// The claims that are, or may have been, written, by their number.
    claims: HashMap<u64, Known>,
    slots: Slots,
}

#[derive(Debug)]
struct Known {
    slot: u64,
    key: Arc<str>,
    /// Once it is known to have been written.
    place: Option<Place>,
    /// What was ahead of it, when it was last seen to wait.
    ahead: Option<Ahead>,
    /// Whether something that was to write or delete it has not been answered, and may still arrive.
    unanswered: bool,
}

/// Something that writes or deletes a claim, on its way.
struct Sending {
    key: Arc<str>,
    /// Whether something was unanswered before.
    unanswered: bool,
}

/// A claim's place in the order, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The revision at which it was written.
    pub(crate) ticket: i64,
    /// The token of its grant.
    pub(crate) token: FencingToken,
}

/// How a claim stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Granted(Place),
    Waiting(Place, Ahead),
    Absent,
}

impl Claims {
    /// Writes the key of a session whose lease was just made, at `revision` or later. In the same step
    /// the namespace's format is checked, and where the store has lost its data since the client
    /// connected, format and base are made anew.
    pub(crate) async fn open(
        link: &Arc<Link>,
        layout: &Layout,
        terms: &SessionTerms,
        lease: i64,
        revision: i64,
    ) -> Result<Self, StoreError> {
        let owner = Record::new(None, terms.owner.clone(), wall_clock()).text()?;
        let key = layout.session(terms.id);
        let proposed = base::proposal(base::now(), revision, 0);
        let leased = PutOptions::new().with_lease(lease);
        let txn = Txn::new().when([absent(key.clone())]).and_then([
            make_or_read(layout.format(), Format::current()?),
            make_or_read(layout.base(), base::text(proposed)),
            TxnOp::put(key, owner, Some(leased)),
        ]);
        let answer = link.txn(txn).await?;
        let history = History::default();
        let opened = history.check(history.known(), answer.header())?.revision();
        if !answer.succeeded() {
            // Its identity was used before. A session is never made a second time.
            return Err(StoreError::lapsed());
        }
        let answers = answer.op_responses();
        if let Some(format) = found_by(&answers, 0) {
            let fits = Format::read(&format)?.fits(layout);
            fits.map_err(|fault| StoreError::refused(fault.to_string()))?;
        }
        let base = found_by(&answers, 1).as_ref().map(read_base);
        Ok(Self {
            link: Arc::clone(link),
            txns: Txns {
                layout: layout.clone(),
                session: terms.id,
                lease,
                opened,
            },
            history,
            base: AtomicU64::new(base.transpose()?.unwrap_or(proposed)),
            heard: AtomicI64::new(opened),
            book: Mutex::default(),
        })
    }

    /// Those of a session that no store knows.
    #[cfg(test)]
    pub(crate) fn unopened(link: Arc<Link>, layout: Layout, session: SessionId) -> Self {
        Self {
            link,
            txns: Txns {
                layout,
                session,
                lease: 1,
                opened: 1,
            },
            history: History::default(),
            base: AtomicU64::new(0),
            heard: AtomicI64::new(0),
            book: Mutex::default(),
        }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn lease(&self) -> i64 {
        self.txns.lease
    }

    pub(crate) fn session_key(&self) -> String {
        self.txns.layout.session(self.txns.session)
    }

    pub(crate) async fn request(&self, claim: &Claim, wait: Wait) -> Result<State, StoreError> {
        self.enter(None, claim, wait).await
    }

    /// Takes out one claim and requests another of the same lock, in one transaction.
    pub(crate) async fn replace(
        &self,
        leaving: &Claim,
        claim: &Claim,
    ) -> Result<State, StoreError> {
        let replaced = self.enter(Some(leaving), claim, Wait::InTurn).await;
        if let Err(fault) = &replaced
            && fault.kind() == StoreErrorKind::Unconfirmed
        {
            // A server out of space may have refused it as a whole. An unlock must not depend on that
            // (ATOM-B).
            let withdrawn = self.withdraw(leaving, Attempts::Answered).await;
            withdrawn.map_err(|fault| StoreError::ambiguous(fault.to_string()))?;
        }
        replaced
    }

    async fn enter(
        &self,
        leaving: Option<&Claim>,
        claim: &Claim,
        wait: Wait,
    ) -> Result<State, StoreError> {
        let number = claim.id.number;
        let record = Record::new(Some(number), claim.owner.clone(), wall_clock());
        let proposed = self.proposal();
        let leaves = leaving.and_then(|leaving| Some((leaving, self.sends(leaving)?)));
        let sending = self.begins(claim);
        let out = leaves.as_ref().map(|(_, sending)| &*sending.key);
        let txn = (self.txns).request(out, (claim, &sending.key), wait, &record, proposed)?;
        let answer = self.txn(txn).await;
        let no_more_comes = match &answer {
            Ok(_) => true,
            Err(fault) => fault.never_took_effect(),
        };
        if no_more_comes {
            self.arrived(claim, &sending);
            if let Some((leaving, sending)) = &leaves {
                self.arrived(leaving, sending);
            }
        }
        let (answer, ticket) = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                self.forget_unwritten(claim);
                return Err(fault);
            }
        };
        if let Some(leaving) = leaving {
            self.forget(leaving);
        }
        match self.txns.answer(&answer, proposed) {
            Answer::Free { base } => Ok(State::Granted(self.placed(claim, ticket, base)?)),
            Answer::Queued { base, ahead } => {
                let place = self.placed(claim, ticket, base)?;
                Ok(self.waits(claim, place, ahead))
            }
            Answer::Nothing(found) => match self.learn(claim, &found).await? {
                Some(place) => self.look_from(claim, place).await,
                None => {
                    self.forget_unwritten(claim);
                    Ok(State::Absent)
                }
            },
        }
    }

    /// From the newest revision that is known: by what has been written since, the token is ahead of
    /// the time, and with it all later ones. That must stay less than the time in which a store that has
    /// lost its data comes back (FENCE).
    fn proposal(&self) -> u64 {
        let heard = self.heard.load(Ordering::Relaxed);
        let revision = self.history.known().revision().max(heard);
        base::proposal(base::now(), revision, self.base.load(Ordering::Relaxed))
    }

    /// Takes in the header of what a watch has told. It may be from a member that is behind: no reason
    /// to end the session.
    pub(crate) fn hear_of(&self, header: Option<&ResponseHeader>) {
        let revision = header.map_or(0, ResponseHeader::revision);
        self.heard.fetch_max(revision, Ordering::Relaxed);
    }

    /// How the claim stands now, by one read, if its place is known.
    pub(crate) async fn look(&self, claim: &Claim) -> Result<State, StoreError> {
        let known = (self.book().claims.get(&claim.id.number))
            .map(|known| (known.key.clone(), known.place));
        let place = match known {
            Some((_, Some(place))) => Some(place),
            Some((key, None)) => {
                let (answer, _) = self.txn(self.txns.search(claim, &key)).await?;
                let found = self.txns.found(&answer.op_responses());
                self.learn(claim, &found).await?
            }
            // This session never asked for it, or has withdrawn it.
            None if self.session_stands().await? => None,
            None => return Err(StoreError::lapsed()),
        };
        match place {
            Some(place) => self.look_from(claim, place).await,
            None => Ok(State::Absent),
        }
    }

    async fn look_from(&self, claim: &Claim, place: Place) -> Result<State, StoreError> {
        let known = (self.book().claims.get(&claim.id.number))
            .map(|known| (known.key.clone(), known.ahead.clone()));
        let Some((key, ahead)) = known else {
            return Ok(State::Absent);
        };
        let look = (self.txns).look((claim, &key), place.ticket, ahead.as_ref());
        let (answer, _) = self.txn(look).await?;
        match self.txns.looked(&answer, place.ticket, ahead) {
            (false, ..) => Err(StoreError::lapsed()),
            (true, false, _) => Ok(State::Absent),
            (true, true, None) => Ok(State::Granted(place)),
            (true, true, Some(ahead)) => Ok(self.waits(claim, place, ahead)),
        }
    }

    fn waits(&self, claim: &Claim, place: Place, ahead: Ahead) -> State {
        if let Some(known) = self.book().claims.get_mut(&claim.id.number) {
            known.ahead = Some(ahead.clone());
        }
        State::Waiting(place, ahead)
    }

    /// Whether a claim that one of this session waits for is still there. That it is gone says something
    /// only while the session stands, so the same read tells that too.
    pub(crate) async fn is_there(&self, ahead: &Ahead) -> Result<bool, StoreError> {
        match self.peek(Some(ahead)).await? {
            (true, is_there) => Ok(is_there),
            (false, _) => Err(StoreError::lapsed()),
        }
    }

    /// Whether the session's key is still there.
    pub(crate) async fn session_stands(&self) -> Result<bool, StoreError> {
        Ok(self.peek(None).await?.0)
    }

    async fn peek(&self, ahead: Option<&Ahead>) -> Result<(bool, bool), StoreError> {
        let (answer, _) = self.txn(self.txns.peek(ahead)).await?;
        Ok(self.txns.peeked(&answer))
    }

    /// Whether this is the key of a claim of this session.
    pub(crate) fn is_own(&self, key: &[u8]) -> bool {
        self.txns.is_own(key)
    }

    /// The ticket of a claim that is known to have been written.
    pub(crate) fn ticket(&self, claim: &Claim) -> Option<i64> {
        let book = self.book();
        let place = book.claims.get(&claim.id.number)?.place?;
        Some(place.ticket)
    }

    /// What the keys of this lock's claims begin with.
    pub(crate) fn lock_key(&self, name: &LockName) -> String {
        self.txns.layout.lock(name)
    }

    /// Whether this is the key of a claim of another session that conflicts with this one.
    pub(crate) fn is_rival(&self, claim: &Claim, key: &[u8]) -> bool {
        self.txns.is_rival(claim, key)
    }

    /// The revision as of which no claim of another session that conflicts was written after this one; `None`
    /// if there is one.
    pub(crate) async fn alone_as_of(
        &self,
        claim: &Claim,
        ticket: i64,
    ) -> Result<Option<i64>, StoreError> {
        let (answer, revision) = self.txn(self.txns.behind(claim, ticket)).await?;
        match self.txns.seen_behind(claim, &answer) {
            (true, is_contended) => Ok(Some(revision).filter(|_| !is_contended)),
            (false, _) => Err(StoreError::lapsed()),
        }
    }

    pub(crate) async fn withdraw(
        &self,
        claim: &Claim,
        attempts: Attempts,
    ) -> Result<(), StoreError> {
        // Without a key this session has not asked for it.
        let sending = self.sends(claim);
        let key = sending.as_ref().map(|sending| &*sending.key);
        match (attempts, key) {
            (Attempts::Answered, None) => {}
            (Attempts::Answered, Some(key)) => {
                self.txn(self.txns.withdraw(claim, key)).await?;
            }
            (Attempts::Unanswered, key) => {
                match self.txn(self.txns.withdraw_for_good(claim, key)).await {
                    Ok((answer, _)) if answer.succeeded() => {}
                    Ok(_) => return Err(StoreError::lapsed()),
                    // A server out of space takes no mark. An unlock must not depend on that (ATOM-B); the
                    // mark is tried again (ONCE).
                    Err(fault) if fault.kind() == StoreErrorKind::Unconfirmed => {
                        if let Some(key) = key {
                            self.txn(self.txns.withdraw(claim, key)).await?;
                        }
                        return Err(StoreError::unavailable(fault.to_string()));
                    }
                    Err(fault) => return Err(fault),
                }
            }
        }
        if let Some(sending) = sending.filter(|_| attempts == Attempts::Answered) {
            self.arrived(claim, &sending);
        }
        self.forget(claim);
        Ok(())
    }

    /// Something is sent that writes the claim. It gets a key, if it has none.
    fn begins(&self, claim: &Claim) -> Sending {
        let book = &mut *self.book();
        let known = book.claims.entry(claim.id.number).or_insert_with(|| {
            let number = book.slots.take(&claim.name, claim.mode);
            let session = self.txns.session;
            let key = (self.txns.layout).slot(&claim.name, claim.mode, Slot { session, number });
            Known {
                slot: number,
                key: key.into(),
                place: None,
                ahead: None,
                unanswered: false,
            }
        });
        known.sends()
    }

    /// Something is sent about a claim that may be there; `None` if it cannot be.
    fn sends(&self, claim: &Claim) -> Option<Sending> {
        let mut book = self.book();
        Some(book.claims.get_mut(&claim.id.number)?.sends())
    }

    /// What was sent was answered.
    fn arrived(&self, claim: &Claim, sending: &Sending) {
        if let Some(known) = self.book().claims.get_mut(&claim.id.number) {
            known.unanswered = sending.unanswered;
        }
    }

    /// The claim is surely not there.
    fn forget(&self, claim: &Claim) {
        let book = &mut *self.book();
        if let Some(known) = book.claims.remove(&claim.id.number) {
            let all_arrived = !known.unanswered;
            (book.slots).give_back(&claim.name, claim.mode, known.slot, all_arrived);
        }
    }

    /// The same of a claim that was not written, unless something may still write it.
    fn forget_unwritten(&self, claim: &Claim) {
        let number = claim.id.number;
        let may_come = |known: &Known| known.unanswered || known.place.is_some();
        if !self.book().claims.get(&number).is_some_and(may_come) {
            self.forget(claim);
        }
    }

    /// Sends a transaction, and returns its answer and revision. One that wrote something has a
    /// revision of its own.
    async fn txn(&self, txn: Txn) -> Result<(TxnResponse, i64), StoreError> {
        let known = self.history.known();
        let answer = self.link.txn(txn).await?;
        let point = self.history.check(known, answer.header())?;
        Ok((answer, point.revision()))
    }

    /// Notes the place of a claim that was just written.
    fn placed(&self, claim: &Claim, ticket: i64, base: Option<u64>) -> Result<Place, StoreError> {
        // Somebody deleted the base, and it cannot be known what it was. The next session makes it anew.
        let base = base.ok_or_else(StoreError::lapsed)?;
        self.base.fetch_max(base, Ordering::Relaxed);
        // The claim was written all the same: it must be withdrawn (ATOM-B).
        let absurd =
            || StoreError::unconfirmed(strange(self.txns.layout.base().as_bytes()).to_string());
        let token = base::token(base, ticket).ok_or_else(absurd)?;
        let place = Place { ticket, token };
        if let Some(known) = self.book().claims.get_mut(&claim.id.number) {
            known.place = Some(place);
        }
        Ok(place)
    }

    /// The place of a claim whose request went unanswered; `None` if it is not there (ONCE).
    async fn learn(&self, claim: &Claim, found: &Found) -> Result<Option<Place>, StoreError> {
        if !found.session_stands {
            return Err(StoreError::lapsed());
        }
        let Some(own) = found.own.as_ref().filter(|_| !found.is_withdrawn) else {
            return Ok(None);
        };
        let record = Record::read(own.value()).ok_or_else(|| strange(own.key()))?;
        if record.claim != Some(claim.id.number) {
            // A store that has an earlier claim there is not the one that this session knows.
            return Err(StoreError::lapsed());
        }
        let ticket = own.create_revision();
        let base = match record.base {
            Some(base) => Some(base),
            None => base_as_of(&self.link, &self.txns.layout, ticket, found.base.as_ref()).await?,
        };
        // If the server has compacted it away, the claim has no token, and never will have one: this
        // session is given up. An answer must have been lost, the clock be behind another client's, and
        // a compaction have overtaken the repeated request.
        Ok(Some(self.placed(claim, ticket, base)?))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn sends(&mut self) -> Sending {
        Sending {
            key: self.key.clone(),
            unanswered: std::mem::replace(&mut self.unanswered, true),
        }
    }
}

/// The base at this ticket: the current one if it is older, otherwise the one that the server still has
/// of then; `None` if it has compacted that away.
pub(crate) async fn base_as_of(
    link: &Link,
    layout: &Layout,
    ticket: i64,
    current: Option<&KeyValue>,
) -> Result<Option<u64>, StoreError> {
    if let Some(current) = current.filter(|base| base.mod_revision() <= ticket) {
        return read_base(current).map(Some);
    }
    let key = layout.base();
    let past = link
        .call(|wire| {
            let mut kv = wire.kv.clone();
            async move {
                let options = GetOptions::new().with_revision(ticket);
                match kv.get(key, Some(options)).await {
                    Err(fault) if is_compacted(&fault) => Ok(None),
                    found => found.map(|found| only(&found)),
                }
            }
        })
        .await?;
    past.as_ref().map(read_base).transpose()
}

fn read_base(key: &KeyValue) -> Result<u64, StoreError> {
    base::read(key.value()).ok_or_else(|| strange(key.key()))
}

/// Makes a key, or reads it if it is there.
fn make_or_read(key: String, value: String) -> TxnOp {
    let txn = Txn::new().when([absent(key.clone())]);
    let txn = txn.and_then([TxnOp::put(key.clone(), value, None)]);
    TxnOp::txn(txn.or_else([TxnOp::get(key, None)]))
}

/// What the [`make_or_read`] at this place has read.
fn found_by(answers: &[TxnOpResponse], place: usize) -> Option<KeyValue> {
    match answers.get(place)? {
        TxnOpResponse::Txn(made) => gets(&made.op_responses()).first().and_then(only),
        _ => None,
    }
}
