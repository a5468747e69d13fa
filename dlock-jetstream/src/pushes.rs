//! The messages between sessions: who has been granted a lock, and who is waited for.
//!
//! Whoever changes a lock's document tells those whom it concerns, after the server has acknowledged the
//! write (COMMITTED), by a plain NATS message that nobody keeps. It may be lost; then the core's
//! own re-check finds the grant (WAKE). It brings the document along, so that its receiver can release
//! with one write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use dlock_core::table::{Entry, Granted, LockTable};
use dlock_core::{ClaimId, FencingToken, LockName, Mailbox, SessionId};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::backend::Store;
use crate::documents::{Document, Memory};

/// A document with more claims than this stays behind: its receiver reads it when it needs it.
const MOST_CLAIMS: usize = 256;

/// One message, to one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The session's claims that are granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) granted: Vec<(ClaimId, FencingToken)>,
    /// Its granted claims that another session waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) contended: Vec<ClaimId>,
    /// The lock's document, and its sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<(LockName, u64, LockTable)>,
}

impl Message {
    pub(crate) fn with(mut self, name: &LockName, document: &Document) -> Self {
        if document.table.claims().count() <= MOST_CLAIMS {
            let Document { sequence, table } = document.clone();
            self.document = Some((name.clone(), sequence, table));
        }
        self
    }
}

/// What a change tells others: whom it granted, and who holds what the new claim now waits for.
pub(crate) fn to_others(
    table: &LockTable,
    granted: &[Granted],
    claim: Option<ClaimId>,
) -> BTreeMap<SessionId, Message> {
    let mut messages: BTreeMap<SessionId, Message> = BTreeMap::new();
    for grant in granted.iter().filter(|grant| Some(grant.id) != claim) {
        // It may have been taken out again in the same change.
        if let Some(entry) = table.get(grant.id) {
            describe(table, entry, messages.entry(entry.id.session).or_default());
        }
    }
    for ahead in claim.into_iter().flat_map(|claim| table.blockers(claim)) {
        let of_another = claim.is_some_and(|claim| claim.session != ahead.id.session);
        if ahead.token.is_some() && of_another {
            let message = messages.entry(ahead.id.session).or_default();
            if !message.contended.contains(&ahead.id) {
                message.contended.push(ahead.id);
            }
        }
    }
    messages
}

/// What a document tells everybody who holds the lock: a change may have been committed without its
/// messages.
pub(crate) fn to_holders(table: &LockTable) -> BTreeMap<SessionId, Message> {
    let mut messages: BTreeMap<SessionId, Message> = BTreeMap::new();
    for entry in table.claims().filter(|entry| entry.token.is_some()) {
        describe(table, entry, messages.entry(entry.id.session).or_default());
    }
    messages
}

/// What a granted claim's session should know of it.
fn describe(table: &LockTable, entry: &Entry, message: &mut Message) {
    if let Some(token) = entry.token {
        message.granted.push((entry.id, token));
        if table.is_contended(entry.id) {
            message.contended.push(entry.id);
        }
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How long to wait before the first new try to subscribe, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Passes messages on for ever, over new connections as old ones end.
pub(crate) async fn forward(
    store: Arc<Store>,
    mut messages: Subscriber,
    session: SessionId,
    memory: Arc<Memory>,
    mailbox: Mailbox,
) {
    loop {
        while let Some(message) = messages.next().await {
            match serde_json::from_slice(&message.payload) {
                Ok(message) => pass_on(&message, session, &memory, &mailbox),
                Err(fault) => tracing::debug!(%fault, "a message that is not ours"),
            }
        }
        tracing::debug!(%session, "the connection ended; subscribing again");
        let mut pause = FIRST_PAUSE;
        messages = loop {
            match store.link.subscribe(store.layout.channel(session)).await {
                Ok(messages) => break messages,
                Err(fault) => tracing::debug!(%session, %fault, "cannot subscribe"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
    }
}

/// The document first: whoever is granted may release at once.
fn pass_on(message: &Message, session: SessionId, memory: &Memory, mailbox: &Mailbox) {
    if let Some((name, sequence, table)) = &message.document {
        let document = Document {
            sequence: *sequence,
            table: table.clone(),
        };
        memory.see(name, &document);
    }
    let ours = |claim: &ClaimId| claim.session == session;
    for (claim, token) in message.granted.iter().filter(|(claim, _)| ours(claim)) {
        mailbox.granted(*claim, *token);
    }
    for claim in message.contended.iter().filter(|claim| ours(claim)) {
        mailbox.contended(*claim);
    }
}

#[cfg(test)]
mod tests {
    use dlock_core::table::Stamp;
    use dlock_core::{Mode, Owner, Push};

    use super::*;

    #[tokio::test]
    async fn messages_become_pushes_and_their_documents_are_remembered() {
        let session = SessionId::random();
        let claim = ClaimId { session, number: 7 };
        let other = ClaimId {
            session: SessionId::random(),
            number: 7,
        };
        let token = FencingToken::from_order(5);
        let name = LockName::new("a").unwrap();
        let mut document = Document {
            sequence: 3,
            table: LockTable::default(),
        };
        let stamp = Stamp {
            order: 1,
            millis: 0,
        };
        (document.table).request(claim, Mode::Exclusive, &Owner::this_process(), stamp);
        let message = Message {
            granted: vec![(other, token), (claim, token)],
            contended: vec![claim, other],
            document: None,
        };
        let text = serde_json::to_vec(&message.with(&name, &document)).unwrap();
        let message = serde_json::from_slice(&text).unwrap();

        let (mailbox, mut inbox) = Mailbox::new();
        let memory = Memory::default();
        pass_on(&message, session, &memory, &mailbox);
        drop(mailbox);
        assert_eq!(inbox.next().await, Some(Push::Granted(claim, token)));
        assert_eq!(inbox.next().await, Some(Push::Contended(claim)));
        assert_eq!(inbox.next().await, None);
        assert_eq!(memory.seen(&name), Some(document));
    }
}
