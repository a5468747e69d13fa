//! A backend that pushes false hints all the time (WAKE: only a grant is a grant).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dlock_core::{
    Attempts, Backend, Capabilities, Claim, LockName, LockSnapshot, Mailbox, Opened, Outcome,
    Session, SessionTerms, StoreError, Wait, async_trait,
};
use tokio::task::JoinHandle;

/// How often a false hint is pushed to each claim.
const EVERY: Duration = Duration::from_millis(5);

/// Tells every claim, from its request on, again and again that something has changed.
#[derive(Clone, Debug)]
pub struct Gossip {
    inner: Arc<dyn Backend>,
    counts: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    hints: AtomicU64,
    looks: AtomicU64,
}

impl Gossip {
    /// This backend, with false hints.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self {
            inner,
            counts: Arc::default(),
        }
    }

    /// How many false hints were pushed.
    #[must_use]
    pub fn hints(&self) -> u64 {
        self.counts.hints.load(Ordering::Relaxed)
    }

    /// How often the core looked.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.counts.looks.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Backend for Gossip {
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
        let opened = self.inner.open(terms, mailbox.clone()).await?;
        let session = GossipSession {
            inner: opened.session,
            mailbox,
            counts: Arc::clone(&self.counts),
            gossips: std::sync::Mutex::default(),
        };
        Ok(Opened {
            session: Arc::new(session),
            ttl: opened.ttl,
        })
    }
}

#[derive(Debug)]
struct GossipSession {
    inner: Arc<dyn Session>,
    mailbox: Mailbox,
    counts: Arc<Told>,
    gossips: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl GossipSession {
    fn gossip_about(&self, claim: &Claim) {
        let (mailbox, counts, claim) = (self.mailbox.clone(), Arc::clone(&self.counts), claim.id);
        let gossip = tokio::spawn(async move {
            loop {
                mailbox.changed(claim);
                mailbox.contended(claim);
                counts.hints.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(EVERY).await;
            }
        });
        if let Ok(mut gossips) = self.gossips.lock() {
            gossips.push(gossip);
        }
    }
}

impl Drop for GossipSession {
    fn drop(&mut self) {
        for gossip in self
            .gossips
            .lock()
            .iter()
            .flat_map(|gossips| gossips.iter())
        {
            gossip.abort();
        }
    }
}

#[async_trait]
impl Session for GossipSession {
    async fn renew(&self) -> Result<Duration, StoreError> {
        self.inner.renew().await
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        self.gossip_about(claim);
        self.inner.request(claim, wait).await
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        self.counts.looks.fetch_add(1, Ordering::Relaxed);
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
        self.gossip_about(claim);
        self.inner.replace(leaving, claim).await
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        self.inner.withdraw(claim, attempts).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
