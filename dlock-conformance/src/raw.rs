//! A session without the core around it, for cases about what the store itself must do.

use std::sync::Arc;

use dlock_core::{
    Attempts, Claim, ClaimId, FencingToken, Inbox, LockName, Mailbox, Mode, Outcome, Owner,
    Session, SessionId, SessionTerms, Wait,
};

use crate::history::History;
use crate::scene::{LIMIT, LONG, Scene, within};
use crate::target::Link;
use crate::{Context, Failure, Verdict, ensure};

/// A session with a long lease, which records what it asks of the store.
#[derive(Debug)]
pub(crate) struct Raw {
    who: String,
    id: SessionId,
    session: Arc<dyn Session>,
    claims: u64,
    history: History,
    pub(crate) link: Link,
    /// Kept, so that the store's pushes have somewhere to go.
    _inbox: Inbox,
}

impl Raw {
    pub(crate) async fn open(scene: &Scene, who: &str) -> Verdict<Self> {
        let link = scene.link().await?;
        let (mailbox, inbox) = Mailbox::new();
        let terms = SessionTerms {
            id: SessionId::random(),
            ttl: LONG,
            owner: Owner::this_process().labelled(who),
        };
        let opened = within(
            LIMIT,
            "opening a session",
            link.backend.open(&terms, mailbox),
        )
        .await??;
        Ok(Self {
            who: who.to_owned(),
            id: terms.id,
            session: opened.session,
            claims: 0,
            history: scene.history().clone(),
            link,
            _inbox: inbox,
        })
    }

    pub(crate) fn session(&self) -> &Arc<dyn Session> {
        &self.session
    }

    /// A claim that the store has not heard of.
    pub(crate) fn claim(&mut self, lock: &str, mode: Mode) -> Verdict<Claim> {
        self.claims += 1;
        Ok(Claim {
            id: ClaimId {
                session: self.id,
                number: self.claims,
            },
            name: LockName::new(lock)?,
            mode,
            owner: Owner::this_process().labelled(&*self.who),
        })
    }

    pub(crate) async fn request(&self, claim: &Claim, wait: Wait) -> Verdict<Outcome> {
        let what = format!(
            "requests {} ({wait:?}) with claim {}",
            claim.mode, claim.id.number
        );
        self.told(what, self.session.request(claim, wait)).await
    }

    pub(crate) async fn status(&self, claim: &Claim) -> Verdict<Outcome> {
        let what = format!("asks for the status of claim {}", claim.id.number);
        self.told(what, self.session.status(claim)).await
    }

    pub(crate) async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Verdict {
        let what = format!("withdraws claim {} ({attempts:?})", claim.id.number);
        self.told(what, self.session.withdraw(claim, attempts))
            .await
    }

    async fn told<T: std::fmt::Debug>(
        &self,
        what: String,
        operation: impl Future<Output = Result<T, dlock_core::StoreError>>,
    ) -> Verdict<T> {
        let result = within(LIMIT, format!("{} {what}", self.who), operation).await?;
        self.history.note(&*self.who, format!("{what}: {result:?}"));
        result.because(format!("{} {what}", self.who))
    }
}

/// The token of a grant.
pub(crate) fn token(outcome: Outcome) -> Verdict<FencingToken> {
    match outcome {
        Outcome::Granted { token } => Ok(token),
        other => Err(Failure::new(format!("expected a grant, got {other:?}"))),
    }
}

/// That a claim waits.
pub(crate) fn waits(outcome: Outcome) -> Verdict {
    ensure!(
        matches!(outcome, Outcome::Waiting { .. }),
        "expected a wait, got {outcome:?}"
    );
    Ok(())
}
