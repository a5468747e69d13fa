//! A wire between the core and a backend of the same process, with the faults of a network.
//!
//! Each operation is a message of its own: once it is sent it goes on by itself, also when the caller
//! has given it up, as a packet would.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock_core::{
    Attempts, Backend, Capabilities, Claim, Inbox, LockName, LockSnapshot, Mailbox, Opened,
    Outcome, Session, SessionTerms, StoreError, Wait, async_trait,
};
use tokio::sync::{oneshot, watch};

use crate::target::{Condition, Link, Path};
use crate::weather::{Direction, Kept, Weather};

/// The wire, as a backend. Its [`Path`] is half of [`Wire::link`].
#[derive(Clone, Debug)]
pub struct Wire {
    inner: Arc<dyn Backend>,
    path: Arc<WirePath>,
}

struct WirePath {
    weather: watch::Sender<Weather>,
    kept: Arc<AtomicUsize>,
}

impl Wire {
    /// A link that reaches this backend over a wire of its own.
    #[must_use]
    pub fn link(inner: Arc<dyn Backend>) -> Link {
        let path = Arc::new(WirePath {
            weather: watch::Sender::new(Weather::default()),
            kept: Arc::default(),
        });
        let wire = Wire {
            inner,
            path: Arc::clone(&path),
        };
        Link::new(wire).over(path)
    }
}

impl WirePath {
    /// Sends an operation, and returns its answer if that arrives.
    async fn send<T: Send + 'static>(
        self: &Arc<Self>,
        operation: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = Arc::clone(self);
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            if let Some(result) = path.carry(operation).await {
                // The caller may have given it up.
                let _ = sender.send(result);
            }
        });
        match answer.await {
            Ok(result) => result,
            Err(_) => pending().await,
        }
    }

    async fn carry<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<Result<T, StoreError>> {
        let sent = *self.weather.borrow();
        if sent.condition == Condition::Refused {
            return Some(Err(StoreError::unavailable("refused by the suite's wire")));
        }
        tokio::time::sleep(sent.delay(Direction::ToStore)).await;
        if self.weather.borrow().loses(Direction::ToStore) {
            return None;
        }
        if sent.holds(Direction::ToStore) {
            let _kept = Kept::one_more(&self.kept);
            let mut weather = self.weather.subscribe();
            let delivered = |weather: &Weather| weather.deliveries != sent.deliveries;
            weather.wait_for(delivered).await.ok()?;
        }
        let result = operation.await;
        let answered = *self.weather.borrow();
        tokio::time::sleep(answered.delay(Direction::FromStore)).await;
        let lost = self.weather.borrow().loses(Direction::FromStore);
        (!lost).then_some(result)
    }

    /// Carries pushes until the backend lets go of its mailbox.
    async fn push(self: Arc<Self>, mut inbox: Inbox, mailbox: Mailbox) {
        while let Some(push) = inbox.next().await {
            let (path, mailbox) = (Arc::clone(&self), mailbox.clone());
            let delay = self.weather.borrow().delay(Direction::FromStore);
            let arrive = async move {
                tokio::time::sleep(delay).await;
                if !path.weather.borrow().loses(Direction::FromStore) {
                    mailbox.push(push);
                }
            };
            if delay.is_zero() {
                arrive.await;
            } else {
                tokio::spawn(arrive);
            }
        }
    }
}

impl fmt::Debug for WirePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WirePath({:?})", self.weather.borrow().condition)
    }
}

impl Path for WirePath {
    fn set(&self, condition: Condition) {
        self.weather
            .send_modify(|weather| weather.condition = condition);
    }

    fn kept(&self) -> usize {
        self.kept.load(Ordering::Acquire)
    }

    fn deliver(&self) {
        self.weather.send_modify(|weather| weather.deliveries += 1);
    }
}

#[async_trait]
impl Backend for Wire {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let (inner, terms) = (Arc::clone(&self.inner), terms.clone());
        let (inside, inbox) = Mailbox::new();
        tokio::spawn(Arc::clone(&self.path).push(inbox, mailbox));
        let open = async move { inner.open(&terms, inside).await };
        let opened = self.path.send(open).await?;
        let session = WireSession {
            inner: opened.session,
            path: Arc::clone(&self.path),
        };
        Ok(Opened {
            session: Arc::new(session),
            ttl: opened.ttl,
        })
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        let (inner, name) = (Arc::clone(&self.inner), name.clone());
        self.path
            .send(async move { inner.inspect(&name).await })
            .await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.path.send(async move { inner.names().await }).await
    }
}

#[derive(Debug)]
struct WireSession {
    inner: Arc<dyn Session>,
    path: Arc<WirePath>,
}

#[async_trait]
impl Session for WireSession {
    async fn renew(&self) -> Result<Duration, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.path.send(async move { inner.renew().await }).await
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        let (inner, claim) = (Arc::clone(&self.inner), claim.clone());
        let request = async move { inner.request(&claim, wait).await };
        self.path.send(request).await
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        let (inner, claim) = (Arc::clone(&self.inner), claim.clone());
        self.path
            .send(async move { inner.status(&claim).await })
            .await
    }

    fn pushes_contended(&self) -> bool {
        self.inner.pushes_contended()
    }

    async fn listen(&self, claim: &Claim) -> Result<(), StoreError> {
        let (inner, claim) = (Arc::clone(&self.inner), claim.clone());
        self.path
            .send(async move { inner.listen(&claim).await })
            .await
    }

    fn replaces(&self) -> bool {
        self.inner.replaces()
    }

    fn order_step(&self) -> u64 {
        self.inner.order_step()
    }

    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        let inner = Arc::clone(&self.inner);
        let (leaving, claim) = (leaving.clone(), claim.clone());
        let replace = async move { inner.replace(&leaving, &claim).await };
        self.path.send(replace).await
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        let (inner, claim) = (Arc::clone(&self.inner), claim.clone());
        let withdraw = async move { inner.withdraw(&claim, attempts).await };
        self.path.send(withdraw).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        self.path.send(async move { inner.close().await }).await
    }
}
