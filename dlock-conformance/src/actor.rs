//! A client that writes down what it does.

use std::sync::Arc;
use std::time::Duration;

use dlock_core::{Client, Error, FencingToken, Guard, LossReason, Mode};
use tokio::task::JoinHandle;

use crate::history::{History, HoldId};
use crate::scene::{LIMIT, within};
use crate::target::Link;
use crate::{Context, Failure, Verdict};

/// A client with a name, which records what it does. Clones are the same client.
#[derive(Clone, Debug)]
pub struct Actor {
    who: Arc<str>,
    client: Client,
    link: Link,
    ttl: Duration,
    history: History,
}

impl Actor {
    pub(crate) fn new(
        who: &str,
        client: Client,
        link: Link,
        ttl: Duration,
        history: History,
    ) -> Self {
        Self {
            who: who.into(),
            client,
            link,
            ttl,
            history,
        }
    }

    /// Its name, which is its label in the store too.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// The client itself, for what need not be recorded.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its connection.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// How long its lease lasts.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Takes the lock, or waits for it within [`LIMIT`].
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it is not granted in that time.
    pub async fn lock(&self, lock: &str, mode: Mode) -> Verdict<Held> {
        let what = format!("{} acquires {mode} on {lock:?}", self.who);
        let acquired = within(LIMIT, &what, self.acquire(lock, mode)).await?;
        acquired.because(what)
    }

    /// Takes the lock, however long it takes.
    ///
    /// # Errors
    ///
    /// What the client says.
    pub async fn acquire(&self, lock: &str, mode: Mode) -> Result<Held, Error> {
        self.history
            .note(&*self.who, format!("asks for {mode} on {lock:?}"));
        let guard = self.client.lock(lock).mode(mode).await;
        guard
            .map(|guard| self.hold(lock, guard))
            .inspect_err(|error| {
                self.history.note(&*self.who, format!("is told: {error}"));
            })
    }

    /// Tries to take the lock.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when that itself fails.
    pub async fn try_lock(&self, lock: &str, mode: Mode) -> Verdict<Option<Held>> {
        let what = format!("{} tries {mode} on {lock:?}", self.who);
        self.history
            .note(&*self.who, format!("tries {mode} on {lock:?}"));
        let tried = self.client.lock(lock).mode(mode).try_now();
        let guard = within(LIMIT, &what, tried).await?.because(what)?;
        if guard.is_none() {
            self.history.note(&*self.who, "is told that it is taken");
        }
        Ok(guard.map(|guard| self.hold(lock, guard)))
    }

    /// Begins to acquire in a task of its own.
    #[must_use]
    pub fn ask(&self, lock: &str, mode: Mode) -> Asking {
        let (actor, lock) = (self.clone(), lock.to_owned());
        let what = format!("{} is granted {mode} on {lock:?}", self.who);
        let task = tokio::spawn(async move { actor.acquire(&lock, mode).await });
        Asking { what, task }
    }

    /// Records that it got this guard.
    #[must_use]
    pub fn hold(&self, lock: &str, guard: Guard) -> Held {
        let since = self.history.now();
        let id = self
            .history
            .granted(&self.who, lock, guard.mode(), guard.token());
        Held {
            guard: Some(guard),
            id,
            since,
            who: Arc::clone(&self.who),
            lock: lock.to_owned(),
            history: self.history.clone(),
        }
    }
}

/// An acquire on its way. Dropping it drops the acquire.
#[derive(Debug)]
pub struct Asking {
    what: String,
    task: JoinHandle<Result<Held, Error>>,
}

impl Asking {
    /// Whether it has not returned yet.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.task.is_finished()
    }

    /// The hold.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it is not granted within the limit.
    pub async fn granted(self, limit: Duration) -> Verdict<Held> {
        let what = self.what.clone();
        let result = self.result(limit).await?;
        result.because(what)
    }

    /// What the acquire returned.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it does not return within the limit.
    pub async fn result(mut self, limit: Duration) -> Verdict<Result<Held, Error>> {
        let joined = within(limit, &self.what, &mut self.task).await?;
        joined.map_err(|error| Failure::new(format!("{}: its task: {error}", self.what)))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A guard whose hold is recorded. Dropping it drops the guard.
#[derive(Debug)]
pub struct Held {
    /// Taken once, by the end of the hold.
    guard: Option<Guard>,
    id: HoldId,
    since: Duration,
    who: Arc<str>,
    lock: String,
    history: History,
}

impl Held {
    /// When the acquire returned, on the history's clock.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// The guard itself, for what need not be recorded.
    ///
    /// # Errors
    ///
    /// None while it is held; it is here so that no panic is.
    pub fn guard(&self) -> Verdict<&Guard> {
        self.guard
            .as_ref()
            .ok_or_else(|| Failure::new("the guard was taken"))
    }

    /// The token.
    ///
    /// # Errors
    ///
    /// As for [`Held::guard`].
    pub fn token(&self) -> Verdict<FencingToken> {
        Ok(self.guard()?.token())
    }

    /// Whether the guard says that it is held, which the history counts as a time at which it
    /// certainly was.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let now = self.history.now();
        let held = self.guard.as_ref().is_some_and(Guard::is_held);
        if held {
            self.history.held_until(self.id, now);
        }
        held
    }

    /// Releases the lock and waits for it, within [`LIMIT`].
    ///
    /// # Errors
    ///
    /// A [`Failure`] when that fails or takes longer.
    pub async fn release(self) -> Verdict {
        let what = format!("{} releases {:?}", self.who, self.lock);
        let guard = self.into_guard("releases")?;
        within(LIMIT, &what, guard.release()).await?.because(what)
    }

    /// The guard alone. The recorded hold ends here.
    ///
    /// # Errors
    ///
    /// As for [`Held::guard`].
    pub fn into_guard(mut self, what: &str) -> Verdict<Guard> {
        self.end(what)
            .ok_or_else(|| Failure::new("the guard was taken"))
    }

    /// Waits until the guard says that it is lost, and why.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it does not within the limit.
    pub async fn lost(&self, limit: Duration) -> Verdict<LossReason> {
        let what = format!("{} is told that it lost {:?}", self.who, self.lock);
        let reason = within(limit, what, self.guard()?.lost()).await?;
        self.history
            .note(&*self.who, format!("is told of {:?}: {reason}", self.lock));
        Ok(reason)
    }

    fn end(&mut self, what: &str) -> Option<Guard> {
        let guard = self.guard.take()?;
        let now = self.history.now();
        if guard.is_held() {
            self.history.held_until(self.id, now);
        }
        self.history.note(
            &*self.who,
            format!("{what} {} on {:?}", guard.mode(), self.lock),
        );
        Some(guard)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.end("drops"));
    }
}
