//! One session with the in-memory store.

use std::time::Duration;

use async_trait::async_trait;

use super::link::MemoryLink;
use crate::{Attempts, Claim, Outcome, Session, SessionId, StoreError, Wait};

#[derive(Debug)]
pub(super) struct MemorySession {
    link: MemoryLink,
    id: SessionId,
}

impl MemorySession {
    pub(super) fn new(link: MemoryLink, id: SessionId) -> Self {
        Self { link, id }
    }
}

#[async_trait]
impl Session for MemorySession {
    async fn renew(&self) -> Result<Duration, StoreError> {
        let id = self.id;
        self.link
            .call(move |store| store.with(|state, now| state.renew(id, now)))
            .await?
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        let claim = claim.clone();
        let request = move |store: &super::MemoryStore| {
            store.with(|state, now| state.request(&claim, wait, store.stamp(state), now))
        };
        self.link.call(request).await?
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        let claim = claim.clone();
        self.link
            .call(move |store| store.with(|state, now| state.status(&claim, now)))
            .await?
    }

    fn pushes_contended(&self) -> bool {
        true
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        let claim = claim.clone();
        let withdraw = move |store: &super::MemoryStore| {
            store.with(|state, _| state.withdraw(&claim, attempts, store.stamp(state)))
        };
        self.link.call(withdraw).await?
    }

    fn replaces(&self) -> bool {
        true
    }

    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        let (leaving, claim) = (leaving.clone(), claim.clone());
        let replace = move |store: &super::MemoryStore| {
            store.with(|state, now| {
                state.operations.replacements += 1;
                state.withdraw(&leaving, Attempts::Answered, store.stamp(state))?;
                state.request(&claim, Wait::InTurn, store.stamp(state), now)
            })
        };
        self.link.call(replace).await?
    }

    async fn close(&self) -> Result<(), StoreError> {
        let id = self.id;
        let close = move |store: &super::MemoryStore| {
            store.with(|state, _| {
                state.operations.closes += 1;
                state.end(id, store.stamp(state));
            });
        };
        self.link.call(close).await
    }
}
