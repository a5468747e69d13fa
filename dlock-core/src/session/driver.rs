//! The session's task: it renews the lease, performs what the coordinators ask of the store, and
//! hears the store's pushes.
//!
//! It never waits for the store: operations run side by side, each with its own limit, and the task
//! itself only ever waits for the next event. So no slow answer delays a renewal, and none delays the
//! news that the deadline has passed.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, debug, debug_span, error, warn};

use super::{Command, Shared, backoff};
use crate::coordinator::{Next, Operation};
use crate::mutants::{Mutant, is_on};
use crate::{
    Clock, Inbox, LockName, LossReason, Moment, Outcome, Push, Session as StoreSession, StoreError,
    StoreErrorKind, attempt, metrics,
};

pub(super) struct Driver {
    shared: Arc<Shared>,
    store: Arc<dyn StoreSession>,
    backend: &'static str,
    inbox: Inbox,
    commands: mpsc::UnboundedReceiver<Command>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// When to look which name's coordinator has something to do.
    alarms: BTreeSet<(Moment, LockName)>,
    renewal: Renewal,
    closing: Option<Closing>,
}

/// When the lease is renewed next.
struct Renewal {
    due: Moment,
    under_way: bool,
    failures: u32,
}

/// The client is being closed: until when withdraws may be waited for, and who is to be told.
struct Closing {
    until: Moment,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// What the task waits for.
enum Event {
    Done(Done),
    Push(Option<Push>),
    Command(Option<Command>),
    /// The time has come to look at what is due.
    Alarm,
}

/// Something the store has answered, or that took too long.
enum Done {
    Renewed {
        sent: Moment,
        result: Result<Duration, StoreError>,
    },
    Performed {
        operation: Operation,
        result: Result<Outcome, StoreError>,
    },
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Arc<dyn StoreSession>,
        backend: &'static str,
        inbox: Inbox,
        commands: mpsc::UnboundedReceiver<Command>,
        opened: Moment,
    ) -> Self {
        let due = opened + renewal_interval(shared.lease.ttl());
        Self {
            shared,
            store,
            backend,
            inbox,
            commands,
            running: FuturesUnordered::new(),
            alarms: BTreeSet::new(),
            renewal: Renewal {
                due,
                under_way: false,
                failures: 0,
            },
            closing: None,
        }
    }

    pub(super) async fn run(mut self) {
        let clock = self.shared.clock.clone();
        let mut pushes_end = false;
        let mut now = clock.now();
        let mut alarm = self.next_wake(now);
        let mut sleep = clock.sleep_until(alarm);
        loop {
            if let Some(reason) = self.shared.lease.ended_at(now) {
                return self.end_lost(reason).await;
            }
            if let Some(closing) = &self.closing
                && (now >= closing.until || self.shared.registry.is_drained())
            {
                return self.end_closed().await;
            }
            self.start_what_is_due(now);
            let wake = self.next_wake(now);
            // A timer is dear, and most events do not bring anything forward: one that rings too early
            // only makes the task look.
            if wake < alarm || alarm <= now {
                alarm = wake;
                sleep = clock.sleep_until(alarm);
            }
            let event = tokio::select! {
                Some(done) = self.running.next() => Event::Done(done),
                push = self.inbox.next(), if !pushes_end => Event::Push(push),
                command = self.commands.recv() => Event::Command(command),
                () = &mut sleep => Event::Alarm,
            };
            now = clock.now();
            match event {
                Event::Done(done) => self.finish(done, now),
                Event::Push(Some(push)) => self.hear(push, now),
                Event::Push(None) => pushes_end = true,
                Event::Command(Some(Command::Work(name))) => self.advance(&name, now),
                Event::Command(Some(Command::Close { limit, done })) => {
                    let until = now + limit;
                    self.closing = Some(Closing { until, done });
                }
                // Every guard and the client are gone.
                Event::Command(None) => return self.end_abandoned().await,
                // It is to be set anew.
                Event::Alarm => alarm = now,
            }
        }
    }

    fn next_wake(&self, now: Moment) -> Moment {
        let mut wake = self.shared.lease.next_look(now);
        if !self.renewal.under_way {
            wake = wake.min(self.renewal.due);
        }
        if let Some((alarm, _)) = self.alarms.first() {
            wake = wake.min(*alarm);
        }
        if let Some(closing) = &self.closing {
            wake = wake.min(closing.until);
        }
        wake
    }

    fn start_what_is_due(&mut self, now: Moment) {
        if !self.renewal.under_way && now >= self.renewal.due {
            self.renew(now);
        }
        while self.alarms.first().is_some_and(|(alarm, _)| *alarm <= now) {
            if let Some((_, name)) = self.alarms.pop_first() {
                self.advance(&name, now);
            }
        }
    }

    fn renew(&mut self, sent: Moment) {
        self.renewal.under_way = true;
        let store = self.store.clone();
        let limit = self.limited();
        let span = debug_span!("renew", backend = self.backend);
        let attempt = async move {
            let result = limit.run(|| store.renew()).await;
            Done::Renewed { sent, result }
        };
        self.running.push(Box::pin(attempt.instrument(span)));
    }

    /// Performs what the name's coordinator wants done now.
    fn advance(&mut self, name: &LockName, now: Moment) {
        match self
            .shared
            .registry
            .with(name, |coordinator| coordinator.next(now))
        {
            Some((Next::Perform(operation), _)) => self.perform(operation),
            Some((Next::At(alarm), _)) => {
                self.alarms.insert((alarm, name.clone()));
            }
            Some((Next::Nothing, _)) | None => {}
        }
    }

    fn perform(&mut self, operation: Operation) {
        let store = self.store.clone();
        let limit = self.limited();
        let claim = operation.claim();
        let (backend, lock, mode) = (self.backend, &claim.name, claim.mode);
        let span = match &operation {
            Operation::Request(..) => debug_span!("request", backend, %lock, %mode),
            Operation::Look(..) => debug_span!("look", backend, %lock, %mode),
            Operation::Listen(..) => debug_span!("listen", backend, %lock, %mode),
            Operation::Withdraw(..) => debug_span!("withdraw", backend, %lock, %mode),
            Operation::Replace(..) => debug_span!("replace", backend, %lock, %mode),
        };
        let attempt = async move {
            let result = match &operation {
                Operation::Request(claim, wait) => limit.run(|| store.request(claim, *wait)).await,
                Operation::Look(claim) => limit.run(|| store.status(claim)).await,
                Operation::Listen(claim) => limit
                    .run(|| store.listen(claim))
                    .await
                    .map(|()| Outcome::Waiting { look_after: None }),
                Operation::Withdraw(claim, attempts) => limit
                    .run(|| store.withdraw(claim, *attempts))
                    .await
                    .map(|()| Outcome::Absent),
                Operation::Replace(leaving, claim) => {
                    limit.run(|| store.replace(leaving, claim)).await
                }
            };
            if let Err(error) = &result {
                debug!(%error, "failed");
            }
            Done::Performed { operation, result }
        };
        self.running.push(Box::pin(attempt.instrument(span)));
    }

    fn finish(&mut self, done: Done, now: Moment) {
        match done {
            Done::Renewed { sent, result } => {
                self.renewal.under_way = false;
                let counted_from = if is_on(Mutant::DeadlineFromReply) {
                    now
                } else {
                    sent
                };
                metrics::renewed(self.backend, result.is_ok());
                match result {
                    // A store that answers for a dead lease with no time left, as etcd does.
                    Ok(Duration::ZERO) => self.shared.lease.lapsed(),
                    Ok(ttl) => {
                        self.shared.lease.renewed(counted_from, ttl);
                        self.renewal.failures = 0;
                        self.renewal.due = sent + renewal_interval(ttl);
                    }
                    Err(error) if error.kind() == StoreErrorKind::Lapsed => {
                        self.shared.lease.lapsed();
                    }
                    Err(error) => {
                        debug!(backend = self.backend, %error, "the lease was not renewed");
                        self.shared.lease.not_renewed();
                        self.renewal.failures += 1;
                        let pause = backoff(self.shared.lease.ttl()).after(self.renewal.failures);
                        self.renewal.due = now + pause;
                    }
                }
            }
            Done::Performed { operation, result } => {
                if matches!(&result, Err(error) if error.kind() == StoreErrorKind::Lapsed) {
                    self.shared.lease.lapsed();
                }
                // The output gate: past the deadline nobody is told of a grant (LIVE-B).
                if self.shared.lease.ended_at(now).is_some() && !is_on(Mutant::NoOutputGate) {
                    return;
                }
                // What it pushed before it answered is older (FAIR).
                while matches!(operation, Operation::Listen(_))
                    && let Some(push) = self.inbox.next_now()
                {
                    self.hear(push, now);
                }
                let name = operation.claim().name.clone();
                self.shared.registry.with(&name, |coordinator| {
                    coordinator.answered(&operation, result, now);
                });
                self.advance(&name, now);
            }
        }
    }

    fn hear(&mut self, push: Push, now: Moment) {
        let claim = match push {
            Push::Lost(reason) => {
                // After the deadline it is no news: the clock says why, and not who was heard first.
                if self.shared.lease.ended_at(now).is_none() {
                    self.shared.lease.end(reason);
                }
                return;
            }
            Push::Granted(claim, _) | Push::Contended(claim) | Push::Changed(claim) => claim,
        };
        // The output gate, as for answers (LIVE-B).
        if claim.session != self.shared.id || self.shared.lease.ended_at(now).is_some() {
            return;
        }
        let Some(name) = self.shared.registry.name_of(claim.number) else {
            return;
        };
        self.shared.registry.with(&name, |coordinator| match push {
            Push::Granted(_, token) => coordinator.push_granted(claim.number, token, now),
            Push::Contended(_) => coordinator.push_contended(claim.number, now),
            Push::Changed(_) => coordinator.push_changed(claim.number, now),
            Push::Lost(_) => {}
        });
        self.advance(&name, now);
    }

    /// The deadline has passed, or the store has ended the session. Everybody is told first; then
    /// one attempt is made to free in the store what is left there, so that others need not wait for
    /// it to lapse.
    async fn end_lost(mut self, reason: LossReason) {
        for claim in self.shared.registry.held() {
            warn!(backend = self.backend, lock = %claim.name, mode = %claim.mode, %reason, "lock lost");
        }
        metrics::session_lost(self.backend, reason);
        self.shared.registry.close(reason);
        // If it fails, the store frees it when the lease lapses (LIVE-A).
        let until = self.shared.clock.now();
        let _ = self.close_store(until).await;
    }

    /// The client is being closed: guards that are still held are told, and the store is.
    async fn end_closed(mut self) {
        self.shared.lease.end(LossReason::Closed);
        self.shared.registry.close(LossReason::Closed);
        let Some(Closing { until, done }) = self.closing.take() else {
            return;
        };
        let _ = done.send(self.close_store(until).await);
    }

    /// Nobody is left who could use the session.
    async fn end_abandoned(mut self) {
        let until = self.shared.clock.now() + self.shared.lease.remaining();
        if let Err(error) = self.close_store(until).await {
            debug!(backend = self.backend, %error, "the session is left to lapse");
        }
    }

    /// Ends the session in the store, which frees every claim of it. Tried until it is confirmed, or
    /// the time is up, and at least once (ATOM-B).
    async fn close_store(&mut self, until: Moment) -> Result<(), StoreError> {
        // What is on its way is given up: it may hold something that the backend needs to close, and
        // nobody would poll it any more. Copies that still arrive find no lease (ONCE).
        self.running.clear();
        let clock = self.shared.clock.clone();
        let backoff = backoff(self.shared.lease.ttl());
        for failures in 1.. {
            let mut limited = self.limited();
            let left = until.since(clock.now());
            if !left.is_zero() {
                limited.limit = limited.limit.min(left);
            }
            match limited.run(|| self.store.close()).await {
                Ok(()) => break,
                Err(error) if error.kind() == StoreErrorKind::Lapsed => break,
                Err(error) if clock.now() >= until => return Err(error),
                Err(_) => {
                    let again = clock.now() + backoff.after(failures);
                    clock.sleep_until(until.min(again)).await;
                }
            }
        }
        Ok(())
    }

    fn limited(&self) -> Limited {
        Limited {
            clock: self.shared.clock.clone(),
            limit: attempt::limit(self.shared.lease.ttl()),
        }
    }
}

impl Drop for Driver {
    /// However the task ends, also with its runtime: whoever still waits for it is told.
    fn drop(&mut self) {
        self.shared.lease.end(LossReason::Closed);
        self.shared.registry.close(LossReason::Closed);
    }
}

/// A third of the TTL, less a random part, so that clients that started together spread.
fn renewal_interval(ttl: Duration) -> Duration {
    (ttl / 3).mul_f64(1.0 - fastrand::f64() / 10.0)
}

/// Gives up an attempt that takes too long, by dropping it, and contains one that panics.
struct Limited {
    clock: Arc<dyn Clock>,
    limit: Duration,
}

impl Limited {
    async fn run<T, F>(&self, ask: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        // A panic in a backend costs one attempt, not every lock of the client; also one in the call,
        // before there is a future.
        let attempt = async { ask().await };
        let contained = AssertUnwindSafe(attempt).catch_unwind().map(|result| {
            result.unwrap_or_else(|_| {
                error!("the backend panicked");
                Err(StoreError::ambiguous("the backend panicked"))
            })
        });
        attempt::within(&*self.clock, self.limit, contained).await
    }
}
