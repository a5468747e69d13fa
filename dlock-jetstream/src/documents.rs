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
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlock_core::table::LockTable;
use dlock_core::{ClaimId, LockName, StoreError};

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
    pub(crate) table: LockTable,
}

impl Document {
    pub(crate) fn read(subject: &str, stored: Option<&Stored>) -> Result<Self, StoreError> {
        let Some(stored) = stored else {
            return Ok(Self::default());
        };
        let table = match stored.deleted {
            true => LockTable::default(),
            false => serde_json::from_slice(&stored.payload)
                .map_err(|_| strange(subject, &stored.payload))?,
        };
        Ok(Self {
            sequence: stored.sequence,
            table,
        })
    }
}

/// The JSON of a table, and after how many seconds it may go.
pub(crate) fn written(table: &LockTable) -> Result<(Vec<u8>, Option<u64>), StoreError> {
    let text = serde_json::to_vec(table)
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
}

#[derive(Debug, Default)]
struct Remembered {
    /// The last document that was seen.
    seen: Option<Document>,
    /// The session's claims that are in it, or may be.
    open: BTreeSet<u64>,
    /// Whether a write went unanswered. Its messages may be missing.
    unsettled: bool,
}

impl Memory {
    fn locked(&self) -> MutexGuard<'_, HashMap<LockName, Remembered>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last document that was seen of this lock.
    pub(crate) fn seen(&self, name: &LockName) -> Option<Document> {
        self.locked().get(name)?.seen.clone()
    }

    /// The sequence below which a document is stale; 0 if none is known.
    pub(crate) fn floor(&self, name: &LockName) -> u64 {
        let locked = self.locked();
        let seen = locked.get(name).and_then(|known| known.seen.as_ref());
        seen.map_or(0, |document| document.sequence)
    }

    /// A newer document than before, or the same.
    pub(crate) fn see(&self, name: &LockName, document: &Document) {
        let mut locked = self.locked();
        if locked.len() >= REMEMBERED && !locked.contains_key(name) {
            // What a claim is open in is never forgotten: its sequence tells a stale read apart.
            locked.retain(|_, known| !known.open.is_empty() || known.unsettled);
        }
        let known = locked.entry(name.clone()).or_default();
        let newer = (known.seen.as_ref()).is_none_or(|seen| seen.sequence <= document.sequence);
        if newer {
            known.seen = Some(document.clone());
        }
    }

    /// The document that was seen is not the last one, or there is none any more.
    pub(crate) fn forget(&self, name: &LockName, sequence: u64) {
        let mut locked = self.locked();
        if let Some(known) = locked.get_mut(name)
            && (known.seen.as_ref()).is_some_and(|seen| seen.sequence <= sequence)
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

    /// The claim is surely in no document, and will be in none.
    pub(crate) fn close(&self, name: &LockName, claim: ClaimId) {
        if let Some(known) = self.locked().get_mut(name) {
            known.open.remove(&claim.number);
        }
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
