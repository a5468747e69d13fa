//! A request for a lock: what is asked for, how long to wait for it, and the asking itself.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use tracing::{Instrument, debug_span};

use crate::client::Inner;
use crate::coordinator::Failure;
use crate::metrics::{self, Acquired};
use crate::session::{Asked, Held, Session, Settled};
use crate::{
    ClaimId, Error, Guard, InvalidName, LockLost, LockName, LockSnapshot, LossReason, Mode, Moment,
    TimedOut, Wait,
};

/// How long the look at who holds a lock may take, for the error of a request that timed out: a tenth
/// of the time-out, within these bounds.
const LOOK_AT_HOLDERS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A request for a lock, sent when it is awaited. It waits for its turn: first come, first served
/// (FAIR).
///
/// # Errors
///
/// Awaiting it fails with [`Error::Timeout`] when a [`timeout`](Request::timeout) was set and has
/// passed, [`Error::Lost`] when the client's session ended while it waited in the queue, and
/// [`Error::Store`] when the store refused, or could not be reached for as long as the session's lease
/// lasts and then not for another one.
///
/// # Cancel safety
///
/// It may be dropped at any time. No claim is left behind: it is withdrawn in the background
/// (CANCEL).
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Request<'a> {
    client: &'a Arc<Inner>,
    name: Result<LockName, InvalidName>,
    mode: Mode,
    timeout: Option<Duration>,
    label: Option<String>,
}

/// A request that does not wait: awaiting it gives `None` when the lock is taken.
///
/// # Errors
///
/// As for [`Request`]; a time-out bounds how long a slow store may take to answer.
///
/// # Cancel safety
///
/// As for [`Request`].
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct TryRequest<'a>(Request<'a>);

impl TryRequest<'_> {
    /// As [`Request::mode`].
    pub fn mode(self, mode: Mode) -> Self {
        Self(self.0.mode(mode))
    }

    /// Allows the store this long to answer.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.timeout(timeout))
    }

    /// As [`Request::label`].
    pub fn label(self, label: impl Into<String>) -> Self {
        Self(self.0.label(label))
    }
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        client: &'a Arc<Inner>,
        name: Result<LockName, InvalidName>,
        mode: Mode,
    ) -> Self {
        Self {
            client,
            name,
            mode,
            timeout: None,
            label: None,
        }
    }

    /// Asks for this mode instead of [`Mode::Exclusive`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Waits at most this long. Without it, it waits for as long as it takes.
    ///
    /// When the time is up, the error says who holds the lock; asking the store for that may take a
    /// tenth of the time-out more (at least 50 ms, at most 1 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Calls this claim by another label than its client's, for those who
    /// [`inspect`](crate::Client::inspect) the lock.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Does not wait for others: if the lock is taken, the answer is `None`, and nothing is written to
    /// the store.
    pub fn try_now(self) -> TryRequest<'a> {
        TryRequest(self)
    }

    async fn acquire(self, wait: Wait) -> Result<Option<Guard>, Error> {
        let name = self.name?;
        let client = self.client;
        let granted = client.modes;
        if !granted.contains(&self.mode) {
            let (backend, mode) = (client.kind(), self.mode);
            return Err(Error::UnsupportedMode {
                backend,
                name,
                mode,
                granted,
            });
        }
        let asking = Asking {
            client,
            name: &name,
            mode: self.mode,
            label: self.label.as_deref(),
            wait,
            started: client.clock.now(),
            timeout: self.timeout,
        };
        let span = debug_span!(
            "acquire", backend = client.kind(), lock = %name, mode = %self.mode, token = tracing::field::Empty
        );
        let mut begun = span.in_scope(|| asking.begin());
        // Who waits for as long as it takes needs no timer, and no look at the holders.
        if asking.timeout.is_none()
            && let Some(Asked::Pending(pending)) = &mut begun
        {
            let settled = pending.settled().instrument(span.clone()).await;
            begun = Some(Asked::Settled(settled));
        }
        let result = match begun {
            Some(Asked::Settled(Settled::Granted(held))) => Ok(Some(asking.guard(held))),
            // All that is rarer, in a box of its own: the others do not make room for it.
            begun => {
                let settled = Box::pin(asking.settle(begun));
                settled.instrument(span.clone()).await
            }
        };
        let outcome = match &result {
            Ok(Some(guard)) => {
                span.record("token", guard.token().get());
                Acquired::Granted
            }
            Ok(None) => Acquired::Taken,
            Err(Error::Timeout(_)) => Acquired::Timeout,
            Err(_) => Acquired::Failed,
        };
        metrics::acquired(client.kind(), self.mode, outcome, || asking.waited());
        result
    }
}

/// A request on its way.
struct Asking<'a> {
    client: &'a Arc<Inner>,
    name: &'a LockName,
    mode: Mode,
    label: Option<&'a str>,
    wait: Wait,
    started: Moment,
    timeout: Option<Duration>,
}

impl Asking<'_> {
    /// Asks in the session that stands, if one does.
    fn begin(&self) -> Option<Asked> {
        let session = self.client.standing(self.started)?;
        Some(self.ask(session, self.started))
    }

    /// Asks in this session, which stood at that moment.
    fn ask(&self, session: Session, now: Moment) -> Asked {
        let owner = || match self.label {
            Some(label) => self.client.owner.clone().labelled(label),
            None => self.client.owner.clone(),
        };
        session.request(self.name, self.mode, self.wait, owner, now)
    }

    fn guard(&self, held: Held) -> Guard {
        Guard::new(held, self.mode, self.client.kind())
    }

    /// What comes of what was begun, or of a request in another session.
    async fn settle(&self, begun: Option<Asked>) -> Result<Option<Guard>, Error> {
        let first = match begun {
            Some(asked) => self.end(asked).await?,
            None => Box::pin(self.ask_in_another()).await?,
        };
        let last = match first {
            // The session turned out to be over: once more, in another one.
            Ended::NeverPlaced(reason) if reason != LossReason::Closed => {
                Box::pin(self.ask_in_another()).await?
            }
            first => first,
        };
        match last {
            Ended::Granted(guard) => Ok(Some(guard)),
            Ended::Taken => Ok(None),
            Ended::NeverPlaced(reason) => Err(Error::Lost(LockLost {
                name: self.name.clone(),
                reason,
            })),
        }
    }

    /// Asks in a session that has to be opened first.
    async fn ask_in_another(&self) -> Result<Ended, Error> {
        let opening = self.client.session("open a session", Some(self.name));
        match self.in_time(opening).await {
            Some(session) => self.end(self.ask(session?, self.client.clock.now())).await,
            None => Err(self.timed_out(self.waited(), None, None)),
        }
    }

    /// What comes of a request in one session.
    async fn end(&self, asked: Asked) -> Result<Ended, Error> {
        let settled = match asked {
            Asked::Settled(settled) => settled,
            Asked::Pending(mut pending) => match self.in_time(pending.settled()).await {
                Some(settled) => settled,
                None => {
                    let (waited, mine) = (self.waited(), pending.claim_id());
                    drop(pending);
                    let seen = Box::pin(self.look()).await;
                    return Err(self.timed_out(waited, mine, seen));
                }
            },
        };
        match settled {
            Settled::Granted(held) => Ok(Ended::Granted(self.guard(held))),
            Settled::Taken => Ok(Ended::Taken),
            Settled::Failed(Failure::NeverPlaced(reason)) => Ok(Ended::NeverPlaced(reason)),
            Settled::Failed(Failure::Lost(reason)) => Err(Error::Lost(LockLost {
                name: self.name.clone(),
                reason,
            })),
            Settled::Failed(Failure::Store(error)) => {
                Err(self.client.failed("acquire", Some(self.name), error))
            }
        }
    }

    /// What comes of it, or `None` when the time is up first.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let Some(timeout) = self.timeout else {
            return Some(work.await);
        };
        tokio::select! {
            biased;
            result = work => Some(result),
            () = self.client.clock.sleep_until(self.started + timeout) => None,
        }
    }

    fn waited(&self) -> Duration {
        self.client.clock.now().since(self.started)
    }

    /// The lock as it is, if the store says so at once.
    async fn look(&self) -> Option<LockSnapshot> {
        let (shortest, longest) = LOOK_AT_HOLDERS;
        let limit = (self.timeout.unwrap_or_default() / 10).clamp(shortest, longest);
        let until = self.client.clock.now() + limit;
        tokio::select! {
            snapshot = self.client.inspect(self.name) => snapshot.ok(),
            () = self.client.clock.sleep_until(until) => None,
        }
    }

    fn timed_out(
        &self,
        waited: Duration,
        mine: Option<ClaimId>,
        seen: Option<LockSnapshot>,
    ) -> Error {
        let (holders, waiters) = seen.map_or_else(Default::default, |s| (s.holders, s.waiters));
        Error::Timeout(Box::new(TimedOut {
            name: self.name.clone(),
            mode: self.mode,
            waited,
            holders,
            next: waiters.into_iter().find(|waiter| Some(waiter.id) != mine),
        }))
    }
}

/// What an attempt in one session came to.
enum Ended {
    Granted(Guard),
    Taken,
    /// The session ended before the store had given the claim a place.
    NeverPlaced(LossReason),
}

impl<'a> IntoFuture for Request<'a> {
    type Output = Result<Guard, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let guard = |granted: Option<Guard>| match granted {
            Some(guard) => guard,
            None => unreachable!("the coordinator says 'taken' only to those who may not wait"),
        };
        self.acquire(Wait::InTurn).map_ok(guard).boxed()
    }
}

impl<'a> IntoFuture for TryRequest<'a> {
    type Output = Result<Option<Guard>, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.0.acquire(Wait::Never).boxed()
    }
}
