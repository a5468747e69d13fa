//! The locks' documents: what they look like in the bucket, and what a session remembers of them.
//!
//! A lock's document is its [`LockTable`] as JSON, so `nats kv get` shows who holds it. A document that
//! nobody is in any more keeps its `last` number and goes by itself after a day ([`FREE_FOR`]): until
//! then it refuses every late request that expects what was there before (ONCE), and its numbers go on
//! (FENCE). After that the server's time is far beyond them.
//!
//! What a session remembers are hints. They save the read before a write, and the write's
//! compare-and-set proves them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dlock_core::table::LockTable;
use dlock_core::{ClaimId, LockName, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::error::strange;
use crate::link::Stored;

/// How long the document of a free lock stays, in seconds: longer than any request can be on its way,
/// and than clocks are apart.
pub(crate) const FREE_FOR: u64 = 24 * 60 * 60;
/// How many locks a session remembers that it has nothing to do with.
const REMEMBERED: usize = 1024;

/// A lock's document at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    /// Its place in the stream; 0 when there is none.
    pub(crate) sequence: u64,
    /// Shared by all who remember the document: a long queue is not copied for each of them.
    pub(crate) table: Arc<LockTable>,
    /// Knocks whose senders have seen nothing later than this count no more (ONCE).
    pub(crate) void: u64,
}

/// A document as it is written. It is read as a table, which has no need of the rest, and as a [`Rest`].
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    table: &'a LockTable,
    #[serde(skip_serializing_if = "is_zero")]
    void: u64,
}

#[derive(Deserialize)]
struct Rest {
    #[serde(default)]
    void: u64,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Document {
    /// Whether such a claim is granted.
    pub(crate) fn holds(&self, is_it: impl Fn(ClaimId) -> bool) -> bool {
        let mut claims = self.table.claims();
        claims.any(|entry| entry.token.is_some() && is_it(entry.id))
    }

    pub(crate) fn read(subject: &str, stored: Option<&Stored>) -> Result<Self, StoreError> {
        let Some(stored) = stored else {
            return Ok(Self::default());
        };
        let sequence = stored.sequence;
        if stored.deleted {
            return Ok(Self {
                sequence,
                ..Self::default()
            });
        }
        let unreadable = |_| strange(subject, &stored.payload);
        let rest: Rest = serde_json::from_slice(&stored.payload).map_err(unreadable)?;
        Ok(Self {
            sequence,
            table: Arc::new(serde_json::from_slice(&stored.payload).map_err(unreadable)?),
            void: rest.void,
        })
    }
}

/// The JSON of a document, and after how many seconds it may go.
pub(crate) fn written(table: &LockTable, void: u64) -> Result<(Vec<u8>, Option<u64>), StoreError> {
    let text = serde_json::to_vec(&Written { table, void })
        .map_err(|fault| StoreError::refused("a document cannot be written").because(fault))?;
    Ok((text, table.is_empty().then_some(FREE_FOR)))
}

/// How many bytes have to be left in a message, so that whoever releases can always write what becomes
/// of the document: whoever waits may get a token (ATOM-B).
pub(crate) fn reserve(table: &LockTable) -> usize {
    const HEADERS: usize = 192;
    const TOKEN: usize = 20;
    let waiting = table.claims().filter(|entry| entry.token.is_none());
    HEADERS + TOKEN * waiting.count()
}

/// What a session remembers of the locks that it has to do with.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    locks: Mutex<HashMap<LockName, Remembered>>,
    /// The claims that were withdrawn while a request may have been on its way.
    withdrawn: Mutex<HashSet<u64>>,
    /// Claims that have knocked.
    knocked: Mutex<HashMap<u64, Knocked>>,
    /// Told of every document that is seen, and of every claim that is let in.
    news: Notify,
}

#[derive(Debug, Default)]
struct Remembered {
    /// The last document that was seen, and when.
    seen: Option<(Instant, Document)>,
    /// The session's claims that are in it, or may be.
    open: BTreeSet<u64>,
    /// Whether a write went unanswered. Its messages may be missing.
    unsettled: bool,
}

/// What became of a claim's knocks.
#[derive(Clone, Copy, Debug, Default)]
struct Knocked {
    /// The greatest sequence that it said it had seen.
    seen: u64,
    /// Whether somebody has let it in, to wait.
    placed: bool,
}

/// How a claim is in its lock's document.
#[derive(Clone, Debug)]
pub(crate) enum LetIn {
    /// As this document says.
    Seen(Document),
    /// It waits.
    Placed,
}

impl Memory {
    fn locked(&self) -> MutexGuard<'_, HashMap<LockName, Remembered>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last document that was seen of this lock.
    pub(crate) fn seen(&self, name: &LockName) -> Option<Document> {
        let locked = self.locked();
        let (_, document) = locked.get(name)?.seen.as_ref()?;
        Some(document.clone())
    }

    /// The same, if it was seen no longer ago than this.
    pub(crate) fn just_seen(&self, name: &LockName, within: Duration) -> Option<Document> {
        let locked = self.locked();
        let (at, document) = locked.get(name)?.seen.as_ref()?;
        (at.elapsed() < within).then(|| document.clone())
    }

    /// Waits until a claim that has knocked is let in.
    pub(crate) async fn let_in(&self, name: &LockName, claim: ClaimId) -> LetIn {
        loop {
            // Made before the look, so that nothing is missed between the two.
            let news = self.news.notified();
            if let Some(found) = self.is_in(name, claim) {
                return found;
            }
            news.await;
        }
    }

    fn is_in(&self, name: &LockName, claim: ClaimId) -> Option<LetIn> {
        let locked = self.locked();
        let seen = locked.get(name).and_then(|known| known.seen.as_ref());
        if let Some((_, document)) = seen.filter(|(_, seen)| seen.table.get(claim).is_some()) {
            return Some(LetIn::Seen(document.clone()));
        }
        drop(locked);
        let placed = self.knockers().get(&claim.number)?.placed;
        placed.then_some(LetIn::Placed)
    }

    /// The sequence below which a document is stale; 0 if none is known.
    pub(crate) fn floor(&self, name: &LockName) -> u64 {
        let locked = self.locked();
        let seen = locked.get(name).and_then(|known| known.seen.as_ref());
        seen.map_or(0, |(_, document)| document.sequence)
    }

    /// A newer document than before, or the same.
    pub(crate) fn see(&self, name: &LockName, document: &Document) {
        let mut locked = self.locked();
        if locked.len() >= REMEMBERED && !locked.contains_key(name) {
            // What a claim is open in is never forgotten: its sequence tells a stale read apart.
            locked.retain(|_, known| !known.open.is_empty() || known.unsettled);
        }
        let known = locked.entry(name.clone()).or_default();
        let sequence = known.seen.as_ref().map(|(_, seen)| seen.sequence);
        if sequence.is_none_or(|sequence| sequence <= document.sequence) {
            known.seen = Some((Instant::now(), document.clone()));
            drop(locked);
            self.news.notify_waiters();
        }
    }

    /// The document that was seen is not the last one, or there is none any more.
    pub(crate) fn forget(&self, name: &LockName, sequence: u64) {
        let mut locked = self.locked();
        if let Some(known) = locked.get_mut(name)
            && (known.seen.as_ref()).is_some_and(|(_, seen)| seen.sequence <= sequence)
        {
            known.seen = None;
        }
    }

    /// A request for the claim is about to be sent. Says whether it is the first one.
    pub(crate) fn open(&self, name: &LockName, claim: ClaimId) -> bool {
        let mut locked = self.locked();
        locked
            .entry(name.clone())
            .or_default()
            .open
            .insert(claim.number)
    }

    /// Whether the claim is in the lock's document, or may be.
    pub(crate) fn is_open(&self, name: &LockName, claim: ClaimId) -> bool {
        let locked = self.locked();
        let known = locked.get(name);
        known.is_some_and(|known| known.open.contains(&claim.number))
    }

    fn withdrawals(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.withdrawn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The claim must not come back for as long as the session lives (ONCE).
    pub(crate) fn withdraw(&self, claim: ClaimId) {
        self.withdrawals().insert(claim.number);
    }

    pub(crate) fn is_withdrawn(&self, claim: ClaimId) -> bool {
        self.withdrawals().contains(&claim.number)
    }

    fn knockers(&self) -> MutexGuard<'_, HashMap<u64, Knocked>> {
        self.knocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claim is about to knock at somebody, who may let it in later on.
    pub(crate) fn knock(&self, claim: ClaimId, seen: u64) {
        let mut knocked = self.knockers();
        let known = knocked.entry(claim.number).or_default();
        known.seen = seen.max(known.seen);
    }

    /// The sequence that the claim said it had seen, if it has knocked.
    pub(crate) fn has_knocked(&self, claim: ClaimId) -> Option<u64> {
        Some(self.knockers().get(&claim.number)?.seen)
    }

    /// The claim that has knocked was let in, and waits.
    pub(crate) fn place(&self, claim: ClaimId) {
        if let Some(knocked) = self.knockers().get_mut(&claim.number) {
            knocked.placed = true;
        }
        self.news.notify_waiters();
    }

    /// The claim is surely in no document, and will be in none.
    pub(crate) fn close(&self, name: &LockName, claim: ClaimId) {
        if let Some(known) = self.locked().get_mut(name) {
            known.open.remove(&claim.number);
        }
        self.knockers().remove(&claim.number);
    }

    /// The locks with claims that are in their documents, or may be.
    pub(crate) fn with_open_claims(&self) -> Vec<LockName> {
        let locked = self.locked();
        let open = locked.iter().filter(|(_, known)| !known.open.is_empty());
        open.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn is_unsettled(&self, name: &LockName) -> bool {
        self.locked().get(name).is_some_and(|known| known.unsettled)
    }

    pub(crate) fn settle(&self, name: &LockName, unsettled: bool) {
        self.locked().entry(name.clone()).or_default().unsettled = unsettled;
    }
}
