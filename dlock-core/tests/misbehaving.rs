//! Backends that do what they should not: one client's trouble stays bounded.

// The helpers below belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dlock_core::memory::{MemoryLink, MemoryStore};
use dlock_core::{
    Attempts, Backend, Capabilities, Claim, Client, LockName, LockSnapshot, LossReason, Mailbox,
    Opened, Outcome, Session, SessionTerms, StoreError, Ttl, Wait, async_trait,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vice {
    /// It asks to be looked at at once, always.
    Restless,
    /// It renews a dead lease for no time, as a keep-alive of etcd does.
    RenewsForNothing,
    /// It panics when it is asked for the lock `boom`.
    Panics,
    /// It panics when it is first asked to withdraw, before there is a future.
    PanicsInTheCall,
    /// It makes every call wait for the one before.
    OneAtATime,
    /// It opens a session more slowly than its lease lasts.
    SlowToOpen,
}

#[derive(Clone, Debug)]
struct Wicked {
    inner: MemoryLink,
    vice: Vice,
    calls: Arc<AtomicU64>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct WickedSession(Wicked, Arc<dyn Session>);

impl Wicked {
    fn new(vice: Vice) -> Self {
        let inner = MemoryStore::new().link();
        Self {
            inner,
            vice,
            calls: Arc::default(),
            turn: Arc::default(),
        }
    }

    async fn client(&self) -> Client {
        let ttl = Ttl::new(Duration::from_secs(3)).unwrap();
        Client::builder(self.clone())
            .ttl(ttl)
            .connect()
            .await
            .unwrap()
    }

    fn answer(&self, outcome: Outcome) -> Outcome {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match (outcome, self.vice) {
            (Outcome::Waiting { .. }, Vice::Restless) => Outcome::Waiting {
                look_after: Some(Duration::ZERO),
            },
            (outcome, _) => outcome,
        }
    }

    async fn my_turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match self.vice {
            Vice::OneAtATime => Some(self.turn.lock().await),
            _ => None,
        }
    }
}

#[async_trait]
impl Backend for Wicked {
    fn kind(&self) -> &'static str {
        "wicked"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let opened = self.inner.open(terms, mailbox).await?;
        if self.vice == Vice::SlowToOpen {
            tokio::time::sleep(opened.ttl).await;
        }
        Ok(Opened {
            session: Arc::new(WickedSession(self.clone(), opened.session)),
            ..opened
        })
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        let turn = self.my_turn().await;
        if turn.is_some() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.inner.inspect(name).await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        let _turn = self.my_turn().await;
        self.inner.names().await
    }
}

#[async_trait]
impl Session for WickedSession {
    async fn renew(&self) -> Result<Duration, StoreError> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let ttl = self.1.renew().await?;
        Ok(if self.0.vice == Vice::RenewsForNothing {
            Duration::ZERO
        } else {
            ttl
        })
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        assert!(claim.name.as_str() != "boom", "the backend's own fault");
        let turn = self.0.my_turn().await;
        if turn.is_some() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.1
            .request(claim, wait)
            .await
            .map(|outcome| self.0.answer(outcome))
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        self.1
            .status(claim)
            .await
            .map(|outcome| self.0.answer(outcome))
    }

    fn pushes_contended(&self) -> bool {
        self.1.pushes_contended()
    }

    async fn listen(&self, claim: &Claim) -> Result<(), StoreError> {
        self.1.listen(claim).await
    }

    fn replaces(&self) -> bool {
        self.1.replaces()
    }

    fn order_step(&self) -> u64 {
        self.1.order_step()
    }

    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        self.1
            .replace(leaving, claim)
            .await
            .map(|outcome| self.0.answer(outcome))
    }

    // By hand, as somebody may write it: a part is done before there is a future.
    fn withdraw<'a, 'b, 'c>(
        &'a self,
        claim: &'b Claim,
        attempts: Attempts,
    ) -> BoxFuture<'c, Result<(), StoreError>>
    where
        'a: 'c,
        'b: 'c,
    {
        let is_first = self.0.calls.fetch_add(1, Ordering::Relaxed) == 1;
        assert!(
            !(self.0.vice == Vice::PanicsInTheCall && is_first),
            "the backend's own fault"
        );
        self.1.withdraw(claim, attempts)
    }

    async fn close(&self) -> Result<(), StoreError> {
        let _turn = self.0.my_turn().await;
        self.1.close().await
    }
}

#[tokio::test]
async fn a_store_that_wants_to_be_looked_at_at_once_is_not_asked_without_a_pause() {
    let backend = Wicked::new(Vice::Restless);
    let (client, other) = (backend.client().await, backend.client().await);
    let _guard = client.lock("a").await.unwrap();
    let waiting = other.lock("a").timeout(Duration::from_millis(200)).await;
    assert!(waiting.is_err(), "the time-out fires");
    let calls = backend.calls.load(Ordering::Relaxed);
    assert!((10..100).contains(&calls), "{calls} looks in 200 ms");
}

#[tokio::test]
async fn a_lease_that_is_renewed_for_no_time_is_gone() {
    let backend = Wicked::new(Vice::RenewsForNothing);
    let guard = backend.client().await.lock("a").await.unwrap();
    assert_eq!(guard.lost().await, LossReason::Revoked);
    assert_eq!(
        backend.calls.load(Ordering::Relaxed),
        2,
        "one request, one renewal"
    );
}

#[tokio::test]
async fn a_panic_costs_one_request_and_not_the_other_locks() {
    let client = Wicked::new(Vice::Panics).client().await;
    let guard = client.lock("a").await.unwrap();
    assert!(
        client
            .lock("boom")
            .timeout(Duration::from_millis(100))
            .await
            .is_err()
    );
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_panic_before_there_is_a_future_costs_one_attempt() {
    let backend = Wicked::new(Vice::PanicsInTheCall);
    let client = backend.client().await;
    let (one, other) = (client.lock("a").await.unwrap(), client.lock("b").await);
    backend.calls.store(1, Ordering::Relaxed);
    one.release().await.unwrap();
    assert!(backend.calls.load(Ordering::Relaxed) > 2, "tried again");
    assert!(other.unwrap().is_held());
}

/// What is on its way when the client is closed is dropped, with what it holds.
#[tokio::test]
async fn close_does_not_wait_behind_an_operation_that_nobody_polls() {
    let backend = Wicked::new(Vice::OneAtATime);
    let client = backend.client().await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.lock("a").await }
    });
    while backend.turn.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    client.close(Duration::from_secs(2)).await.unwrap();
    assert!(asked.await.unwrap().is_err());
}

/// A future that its user keeps without polling it holds up nobody who has to wait for its turn.
#[tokio::test]
async fn a_look_that_nobody_polls_is_waited_for_by_nobody() {
    let backend = Wicked::new(Vice::OneAtATime);
    let client = backend.client().await;
    let mut looks = [client.inspect("a"), client.inspect("b")].map(Box::pin);
    for look in &mut looks {
        assert!(look.now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert!(backend.turn.try_lock().is_err(), "the first has its turn");
    assert_eq!(client.names().await.unwrap(), []);
    client.lock("a").await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_session_that_opens_more_slowly_than_its_lease_lasts_is_an_error() {
    let ttl = Ttl::new(Duration::from_millis(100)).unwrap();
    let connecting = Client::builder(Wicked::new(Vice::SlowToOpen))
        .ttl(ttl)
        .connect()
        .await;
    let error = connecting.unwrap_err().to_string();
    assert!(
        error.contains("longer to open the session than its lease lasts"),
        "{error}"
    );
}
