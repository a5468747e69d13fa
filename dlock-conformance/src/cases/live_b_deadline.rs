//! LIVE-B: the deadline keeps a margin, and nothing is granted past it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dlock_core::{
    Attempts, Backend, Capabilities, Claim, LockName, LockSnapshot, Mailbox, Mode, Opened, Outcome,
    Session, SessionTerms, StoreError, Wait, async_trait,
};

use super::live_b::renews;
use crate::case::{Case, Pace};
use crate::scene::{SHORT, Scene};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "LIVE-B/margin",
            "A holder counts on its lease for clearly less time than the store grants it",
            margin,
        )
        .pace(Pace::Timed),
        Case::new(
            "LIVE-B/stalled-at-the-grant",
            "A process that stands still past its lease, just as it is granted a lock, does not get it",
            stalled,
        )
        .pace(Pace::Timed),
    ]
}

async fn margin(scene: Scene) -> Verdict {
    // In whole seconds, and longer than any store's shortest: it grants just that.
    const TTL: Duration = Duration::from_secs(6);
    let lock = scene.lock("margin");
    let holder = scene.client_for("holder", TTL).await?;
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let keeps_margin = |when: &str| -> Verdict {
        // Half of what the margin is. An answer that took longer than that hides that there is none.
        let remaining = held.guard()?.remaining();
        ensure!(
            remaining < TTL.mul_f64(0.95),
            "{remaining:?} {when} of {TTL:?}: there is no margin"
        );
        Ok(())
    };
    keeps_margin("of the first lease")?;
    renews(&held).await?;
    keeps_margin("after a renewal")?;
    held.release().await
}

async fn stalled(scene: Scene) -> Verdict {
    let lock = scene.lock("stalled");
    let client = scene
        .client_through("client", SHORT, |inner| Arc::new(Stalls::new(inner)))
        .await?;
    // It may be told of the loss, or have asked again in a session that stands.
    if let Ok(held) = client.acquire(&lock, Mode::Exclusive).await {
        ensure!(
            held.is_held(),
            "an acquire returned a guard whose lease had run out before"
        );
        held.release().await?;
    }
    let observer = scene.client("observer").await?;
    let bound = scene.bound(client.ttl()).await?;
    scene.until_free(observer.client(), &lock, bound).await
}

/// A backend whose first grant comes while the process stands still, until its lease has run out.
#[derive(Clone, Debug)]
struct Stalls {
    inner: Arc<dyn Backend>,
    has_stalled: Arc<AtomicBool>,
}

impl Stalls {
    fn new(inner: Arc<dyn Backend>) -> Self {
        Self {
            inner,
            has_stalled: Arc::default(),
        }
    }
}

#[async_trait]
impl Backend for Stalls {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        self.inner.inspect(name).await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        self.inner.names().await
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let opened = self.inner.open(terms, mailbox).await?;
        let session = StallingSession {
            inner: opened.session,
            ttl: opened.ttl,
            has_stalled: Arc::clone(&self.has_stalled),
        };
        Ok(Opened {
            session: Arc::new(session),
            ttl: opened.ttl,
        })
    }
}

#[derive(Debug)]
struct StallingSession {
    inner: Arc<dyn Session>,
    ttl: Duration,
    has_stalled: Arc<AtomicBool>,
}

#[async_trait]
impl Session for StallingSession {
    async fn renew(&self) -> Result<Duration, StoreError> {
        self.inner.renew().await
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        let outcome = self.inner.request(claim, wait).await?;
        if !self.has_stalled.swap(true, Ordering::Relaxed) {
            // Not a pause of the task: the thread that runs the session stands still.
            std::thread::sleep(self.ttl);
        }
        Ok(outcome)
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        self.inner.status(claim).await
    }

    fn pushes_contended(&self) -> bool {
        self.inner.pushes_contended()
    }

    async fn listen(&self, claim: &Claim) -> Result<(), StoreError> {
        self.inner.listen(claim).await
    }

    fn replaces(&self) -> bool {
        self.inner.replaces()
    }

    fn order_step(&self) -> u64 {
        self.inner.order_step()
    }

    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        self.inner.replace(leaving, claim).await
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        self.inner.withdraw(claim, attempts).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
