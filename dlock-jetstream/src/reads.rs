//! Where the document comes from that an operation changes: read, brought along by a message, or changed for
//! it by somebody else.

use dlock_core::{Claim, LockName, SessionId, StoreError};

use crate::documents::{Document, LetIn};
use crate::knocks::Knock;
use crate::link::Ask;
use crate::pushes::Message;
use crate::session::JetStreamSession;
use crate::work::Work;

impl JetStreamSession {
    /// The document to begin with.
    pub(crate) async fn begin(&self, name: &LockName, work: Work<'_>) -> Result<LetIn, StoreError> {
        // Somebody who has just got the lock is likely to write next.
        if let Some(claim) = work.newcomer()
            && let Some(seen) = self.memory.just_seen(name, self.pace.patience())
            && let Some(holder) = self.in_the_way(claim, &seen)
            && let Some(let_in) = self.knock(claim, &seen, holder).await
        {
            return Ok(let_in);
        }
        self.read(name, work.whom()).await.map(LetIn::Seen)
    }

    /// The document to go on with when somebody was quicker than who had seen `before`.
    pub(crate) async fn overtaken(
        &self,
        name: &LockName,
        work: Work<'_>,
        before: Document,
        collisions: &mut u32,
    ) -> Result<LetIn, StoreError> {
        let Some(claim) = work.newcomer() else {
            work.pause(collisions, &before, self.pace.write()).await;
            return self.newer(name, &before).await.map(LetIn::Seen);
        };
        let now = self.newer(name, &before).await?;
        // Where nobody holds it now, whoever did is likely to come back.
        let holder = (self.in_the_way(claim, &now)).or_else(|| self.in_the_way(claim, &before));
        if let Some(holder) = holder
            && let Some(let_in) = self.knock(claim, &now, holder).await
        {
            return Ok(let_in);
        }
        work.pause(collisions, &now, self.pace.write()).await;
        self.read(name, Ask::Leader).await.map(LetIn::Seen)
    }

    /// A newer document than this one, which is not the last.
    async fn newer(&self, name: &LockName, before: &Document) -> Result<Document, StoreError> {
        match self.memory.seen(name) {
            // It was brought along by a message.
            Some(now) if now.sequence > before.sequence => Ok(now),
            _ => {
                self.memory.forget(name, before.sequence);
                self.read(name, Ask::Leader).await
            }
        }
    }

    /// The session of another client that has got the lock last, if the claim would have to wait for it.
    fn in_the_way(&self, claim: &Claim, document: &Document) -> Option<SessionId> {
        let table = &document.table;
        if table.get(claim.id).is_some() {
            return None;
        }
        let holders = table.claims().filter(|entry| {
            let conflicts = !entry.mode.compatible(claim.mode);
            conflicts && entry.token.is_some() && entry.id.session != self.id()
        });
        let last = holders.max_by_key(|entry| entry.token);
        last.map(|entry| entry.id.session)
    }

    /// Asks the holder to let the claim in, and waits a little for that.
    async fn knock(&self, claim: &Claim, document: &Document, holder: SessionId) -> Option<LetIn> {
        let message = Message::knocking(&claim.name, Knock::of(claim, document));
        let text = serde_json::to_vec(&message).ok()?;
        self.memory.knock(claim.id, document.sequence);
        let channel = self.store.layout.channel(holder);
        self.store.link.tell(channel, text).await;
        let let_in = self.memory.let_in(&claim.name, claim.id);
        let waited = tokio::time::timeout(self.pace.patience(), let_in).await;
        waited.ok()
    }

    /// The lock's document. One that is older than what this session has seen is not believed.
    pub(crate) async fn read(&self, name: &LockName, ask: Ask) -> Result<Document, StoreError> {
        let subject = self.store.layout.lock(name);
        let floor = self.memory.floor(name);
        let mut stored = self.store.link.get(&subject, ask).await?;
        let is_stale = stored.as_ref().map_or(0, |stored| stored.sequence) < floor;
        if is_stale && ask == Ask::Anyone {
            stored = self.store.link.get(&subject, Ask::Leader).await?;
        }
        // A long queue is read again and again: it is not parsed, or copied, each time.
        if let Some(stored) = stored.as_ref().filter(|stored| stored.sequence == floor)
            && let Some(seen) = self.memory.seen(name)
            && seen.sequence == stored.sequence
        {
            return Ok(seen);
        }
        let document = Document::read(&subject, stored.as_ref())?;
        if document.sequence < floor {
            // It has gone, or the data was lost.
            self.memory.forget(name, floor);
        }
        self.memory.see(name, &document);
        Ok(document)
    }
}
