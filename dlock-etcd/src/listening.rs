//! The granted claims that a session listens for: of each the core wants to know when somebody in another
//! session waits behind it, because tasks of the process pass it on, share it or keep it.
//!
//! Each has a watch on the lock's keys. It begins at the present, as those of waiting claims do. Whoever
//! has come before that is found by a look, and only then is the answer given: from there on, whoever comes
//! is an event. The look is sent together with the watch, because a release may have to wait for the answer.
//! If it was faster than the watch, and something was written in between, it is repeated. One push is all
//! that the core needs. With it the watch goes, so that a long queue does not tell everybody of everybody.
//!
//! A claim counts as contended as soon as it cannot be known: when the stream breaks, when the watch is
//! cut off, and when the look fails. Nothing is passed on past somebody who was not seen (FAIR), and the
//! next claim is listened for on a new stream.

use std::collections::HashMap;
use std::sync::Arc;

use dlock_core::{Claim, Mailbox, StoreError};
use etcd_client::{Event, EventType, WatchFilterType, WatchOptions};
use tokio::sync::oneshot;

use crate::claims::Claims;
use crate::pushes::WatchId;

/// A granted claim, and who wants to know of others behind it.
#[derive(Debug)]
pub(crate) struct Listened {
    pub(crate) claim: Claim,
    pub(crate) ticket: i64,
    /// Told once whoever comes is an event; dropped if that cannot be known.
    pub(crate) asker: oneshot::Sender<()>,
}

/// All of a session's.
#[derive(Debug)]
pub(crate) struct Listening {
    store: Arc<Claims>,
    mailbox: Mailbox,
    /// By the number of the claim.
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    claim: Claim,
    ticket: i64,
    watch: WatchId,
    /// The revision after which whoever comes is an event, once the server has confirmed the watch.
    begins: Option<i64>,
    /// The revision as of which nobody had come.
    alone: Option<i64>,
    /// Until it is told.
    asker: Option<oneshot::Sender<()>>,
}

/// What returns a [`WatchId`] returns the watch that serves no more.
impl Listening {
    pub(crate) fn new(store: Arc<Claims>, mailbox: Mailbox) -> Self {
        Self {
            store,
            mailbox,
            entries: HashMap::new(),
        }
    }

    pub(crate) fn add(&mut self, listened: Listened, watch: WatchId) {
        let Listened {
            claim,
            ticket,
            asker,
        } = listened;
        let entry = Entry {
            claim,
            ticket,
            watch,
            begins: None,
            alone: None,
            asker: Some(asker),
        };
        self.entries.insert(entry.claim.id.number, entry);
    }

    /// Nobody wants to know any more.
    pub(crate) fn forget(&mut self, claim: u64) -> Option<WatchId> {
        Some(self.entries.remove(&claim)?.watch)
    }

    /// What its watch tells.
    pub(crate) fn hear(&mut self, claim: u64, events: &[Event]) -> Option<WatchId> {
        let rival = &self.entries.get(&claim)?.claim;
        let mut written = events
            .iter()
            .filter(|event| event.event_type() == EventType::Put)
            .filter_map(Event::kv);
        let comes = written.any(|key| self.store.is_rival(rival, key.key()));
        comes.then(|| self.contended(claim)).flatten()
    }

    /// Its watch tells of whoever comes after this revision.
    pub(crate) fn begins(&mut self, claim: u64, revision: i64) {
        if let Some(entry) = self.entries.get_mut(&claim) {
            entry.begins = Some(revision);
        }
    }

    /// Answers, if watch and look leave nothing out; says whether another look is needed for that.
    pub(crate) fn settle(&mut self, claim: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&claim) else {
            return false;
        };
        let (Some(begins), Some(alone)) = (entry.begins, entry.alone) else {
            return false;
        };
        if alone < begins {
            entry.alone = None;
            return true;
        }
        tell(entry.asker.take());
        false
    }

    /// Looks whether somebody waits behind it, and as of which revision nobody does.
    pub(crate) fn look(
        &self,
        claim: u64,
    ) -> Option<impl Future<Output = Result<Option<i64>, StoreError>> + Send + use<>> {
        let entry = self.entries.get(&claim)?;
        let (store, claim, ticket) = (self.store.clone(), entry.claim.clone(), entry.ticket);
        Some(async move { store.alone_as_of(&claim, ticket).await })
    }

    /// What the look has found.
    pub(crate) fn looked(
        &mut self,
        claim: u64,
        found: Result<Option<i64>, StoreError>,
    ) -> Option<WatchId> {
        match found {
            Ok(None) => self.contended(claim),
            Ok(alone) => {
                self.entries.get_mut(&claim)?.alone = alone;
                None
            }
            Err(fault) => {
                tracing::debug!(%fault, "cannot see who waits behind a claim");
                self.unknown(claim)
            }
        }
    }

    fn contended(&mut self, claim: u64) -> Option<WatchId> {
        let entry = self.entries.remove(&claim)?;
        self.mailbox.contended(entry.claim.id);
        tell(entry.asker);
        Some(entry.watch)
    }

    /// It cannot be known whether somebody waits behind it.
    pub(crate) fn unknown(&mut self, claim: u64) -> Option<WatchId> {
        let entry = self.entries.remove(&claim)?;
        self.mailbox.contended(entry.claim.id);
        Some(entry.watch)
    }

    /// The same of all of them: there is no stream any more.
    pub(crate) fn all_unknown(&mut self) {
        for (_, entry) in self.entries.drain() {
            self.mailbox.contended(entry.claim.id);
        }
    }
}

fn tell(asker: Option<oneshot::Sender<()>>) {
    if let Some(asker) = asker {
        // It may have given up.
        let _ = asker.send(());
    }
}

/// For a watch on the claims of a lock: who comes, and not who goes.
pub(crate) fn arrivals(options: WatchOptions) -> WatchOptions {
    options
        .with_prefix()
        .with_filters([WatchFilterType::NoDelete])
}
