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
use crate::knocks::{Knock, Knocks};

/// One message, to one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The session's claims that are granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) granted: Vec<(ClaimId, FencingToken)>,
    /// Its granted claims that another session waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) contended: Vec<ClaimId>,
    /// Its claims that were let in after they had knocked, and wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) placed: Vec<ClaimId>,
    /// The lock's document, with its sequence and up to where knocks are void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<(LockName, u64, Arc<LockTable>, u64)>,
    /// Somebody who asks to be let into the lock's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) knock: Option<(LockName, Knock)>,
}

impl Message {
    /// The same with the document, if its receiver will write it next. Without, if it were longer than `most`
    /// then: its receiver reads the document when it needs it.
    pub(crate) fn written(
        mut self,
        name: &LockName,
        document: &Document,
        most: usize,
    ) -> serde_json::Result<Vec<u8>> {
        let holds = !self.granted.is_empty() || !self.contended.is_empty();
        if holds {
            let Document {
                sequence,
                table,
                void,
            } = document.clone();
            self.document = Some((name.clone(), sequence, table, void));
        }
        let text = serde_json::to_vec(&self)?;
        if text.len() <= most {
            return Ok(text);
        }
        self.document = None;
        serde_json::to_vec(&self)
    }

    pub(crate) fn knocking(name: &LockName, knock: Knock) -> Self {
        Self {
            knock: Some((name.clone(), knock)),
            ..Self::default()
        }
    }
}

/// What a change tells others: whom it granted, whom it let in, and who holds what a new claim now waits for.
pub(crate) fn to_others(
    table: &LockTable,
    granted: &[Granted],
    admitted: &[ClaimId],
    claim: Option<ClaimId>,
) -> BTreeMap<SessionId, Message> {
    let mut messages: BTreeMap<SessionId, Message> = BTreeMap::new();
    for grant in granted.iter().filter(|grant| Some(grant.id) != claim) {
        // It may have been taken out again in the same change.
        if let Some(entry) = table.get(grant.id) {
            describe(table, entry, messages.entry(entry.id.session).or_default());
        }
    }
    for new in admitted.iter().copied() {
        if table.get(new).is_some_and(|entry| entry.token.is_none()) {
            let message = messages.entry(new.session).or_default();
            message.placed.push(new);
        }
    }
    for new in admitted.iter().copied().chain(claim) {
        let holders = table.blockers(new).filter(|ahead| ahead.token.is_some());
        for holder in holders.filter(|holder| holder.id.session != new.session) {
            let message = messages.entry(holder.id.session).or_default();
            if !message.contended.contains(&holder.id) {
                message.contended.push(holder.id);
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
    knocks: Arc<Knocks>,
    mailbox: Mailbox,
) {
    loop {
        while let Some(message) = messages.next().await {
            match serde_json::from_slice(&message.payload) {
                Ok(message) => pass_on(message, session, &memory, &knocks, &mailbox),
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
fn pass_on(
    message: Message,
    session: SessionId,
    memory: &Memory,
    knocks: &Knocks,
    mailbox: &Mailbox,
) {
    if let Some((name, sequence, table, void)) = message.document {
        let document = Document {
            sequence,
            table,
            void,
        };
        memory.see(&name, &document);
    }
    if let Some((name, knock)) = message.knock {
        knocks.hear(name, knock);
    }
    let ours = |claim: &ClaimId| claim.session == session;
    for claim in message.placed.iter().filter(|claim| ours(claim)) {
        memory.place(*claim);
    }
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
            table: Arc::default(),
            void: 2,
        };
        let stamp = Stamp {
            order: 1,
            millis: 0,
        };
        Arc::make_mut(&mut document.table).request(
            claim,
            Mode::Exclusive,
            &Owner::this_process(),
            stamp,
        );
        let message = Message {
            granted: vec![(other, token), (claim, token)],
            contended: vec![claim, other],
            ..Message::default()
        };
        let text = message.clone().written(&name, &document, 1).unwrap();
        let short: Message = serde_json::from_slice(&text).unwrap();
        assert_eq!(short, message, "the document stays behind");
        let text = message.written(&name, &document, 10_000).unwrap();
        let message = serde_json::from_slice(&text).unwrap();

        let (mailbox, mut inbox) = Mailbox::new();
        let memory = Memory::default();
        pass_on(message, session, &memory, &Knocks::default(), &mailbox);
        drop(mailbox);
        assert_eq!(inbox.next().await, Some(Push::Granted(claim, token)));
        assert_eq!(inbox.next().await, Some(Push::Contended(claim)));
        assert_eq!(inbox.next().await, None);
        assert_eq!(memory.seen(&name), Some(document));
    }
}
