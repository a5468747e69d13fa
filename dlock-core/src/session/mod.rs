//! Sessions: one lease with the store, the task that keeps it, and the handle by which everything
//! else speaks to that task.
//!
//! A client has one session at a time. When it is lost, the client opens another for new requests; the
//! guards and requests of the lost one are told and never come back to life.

mod driver;
mod lease;
mod registry;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub(crate) use lease::Lease;

use crate::coordinator::{
    Answer, Backoff, Confirmation, Coordinator, Failure, Granted, Number, Reply, Rules,
};
use crate::mutants::{Mutant, is_on};
use crate::{
    Backend, Claim, ClaimId, Clock, FencingToken, LockName, LossReason, Mailbox, Mode, Moment,
    Owner, SessionId, SessionTerms, StoreError, StoreErrorKind, Wait, attempt,
};
use driver::Driver;
use registry::Registry;

/// How fast a failed operation is tried again.
fn backoff(ttl: Duration) -> Backoff {
    let first = (ttl / 100).clamp(Duration::from_millis(2), Duration::from_millis(50));
    Backoff {
        first,
        longest: (ttl / 10).min(Duration::from_secs(1)),
    }
}

fn may_pass(error: &StoreError) -> bool {
    matches!(
        error.kind(),
        StoreErrorKind::Ambiguous | StoreErrorKind::Unavailable
    )
}

/// What the session's task is told.
#[derive(Debug)]
enum Command {
    /// There may be something to do for this name.
    Work(LockName),
    /// Free everything and end. Answered when the store has confirmed it, or the time is up.
    Close {
        limit: Duration,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
}

/// What the session's task and its users share.
#[derive(Debug)]
struct Shared {
    id: SessionId,
    clock: Arc<dyn Clock>,
    lease: Lease,
    registry: Registry,
}

/// A user's hold on a session: the client has one, and so has every guard and request. When the last
/// one is gone, the task frees what is left and ends.
#[derive(Clone, Debug)]
pub(crate) struct Session(Arc<Handle>);

/// What all users of a session share: each of them keeps one pointer.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Session {
    /// Opens a session and starts its task on the current runtime. What may pass by itself is tried
    /// again for about as long as an open session would outlast it: servers may be electing a leader,
    /// or one of them may just have gone.
    pub(crate) async fn open(
        backend: &dyn Backend,
        clock: Arc<dyn Clock>,
        ttl: Duration,
        owner: Owner,
        rules: Rules,
    ) -> Result<Self, StoreError> {
        let limit = ttl.clamp(Duration::from_secs(5), Duration::from_secs(10));
        let mut fault = None;
        let trying = async {
            let mut failures = 0;
            loop {
                match Self::open_once(backend, clock.clone(), ttl, owner.clone(), rules).await {
                    Err(error) if may_pass(&error) => fault = Some(error),
                    done => return Ok(done),
                }
                failures += 1;
                let again = clock.now() + backoff(ttl).after(failures);
                clock.sleep_until(again).await;
            }
        };
        match attempt::within(&*clock, limit, trying).await {
            Ok(done) => done,
            Err(timeout) => Err(fault.unwrap_or(timeout)),
        }
    }

    /// In each attempt another session: one of which nothing was heard may have been opened.
    async fn open_once(
        backend: &dyn Backend,
        clock: Arc<dyn Clock>,
        ttl: Duration,
        owner: Owner,
        rules: Rules,
    ) -> Result<Self, StoreError> {
        let id = SessionId::random();
        let terms = SessionTerms { id, ttl, owner };
        let (mailbox, inbox) = Mailbox::new();
        let sent = clock.now();
        // The first contact may have to wait for name resolution and handshakes.
        let limit = attempt::limit(ttl).max(Duration::from_secs(2));
        let opened = attempt::within(&*clock, limit, backend.open(&terms, mailbox)).await?;
        if opened.ttl.is_zero() {
            return Err(StoreError::refused("the store granted a lease of no time"));
        }
        let (commands, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            id,
            lease: Lease::new(clock.clone(), sent, opened.ttl),
            clock,
            registry: Registry::new(
                backoff(opened.ttl),
                Rules {
                    listen: !opened.session.pushes_contended(),
                    replace: opened.session.replaces(),
                    order_step: opened.session.order_step(),
                    ..rules
                },
            ),
        });
        if shared.lease.ended().is_some() {
            let slow = "the store took longer to open the session than its lease lasts";
            return Err(StoreError::unavailable(slow));
        }
        let driver = Driver::new(
            shared.clone(),
            opened.session,
            backend.kind(),
            inbox,
            received,
            sent,
        );
        tokio::spawn(driver.run());
        Ok(Self(Arc::new(Handle { shared, commands })))
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.shared().lease
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Asks for a lock at this moment.
    pub(crate) fn request(
        self,
        name: &LockName,
        mode: Mode,
        wait: Wait,
        owner: impl FnOnce() -> Owner,
        now: Moment,
    ) -> Asked {
        let shared = self.shared();
        let number = shared.registry.next_number();
        let claim = || Claim {
            id: ClaimId {
                session: shared.id,
                number,
            },
            name: name.clone(),
            mode,
            owner: owner(),
        };
        let reply = self.with(name, |coordinator| {
            coordinator.request((number, mode, wait), claim, now)
        });
        // Where the registry is closed, the session ended before it could take the request.
        let reply = reply.unwrap_or_else(|| {
            let reason = self.lease().ended_at(now).unwrap_or(LossReason::Closed);
            Reply::Now(Err(Failure::NeverPlaced(reason)))
        });
        match reply {
            Reply::Now(answer) => Asked::Settled(self.settled(name.clone(), answer, now)),
            Reply::Later(answer) => Asked::Pending(Pending(Some(Unanswered {
                session: self,
                name: name.clone(),
                number,
                answer,
            }))),
        }
    }

    /// What the answer means at this moment.
    fn settled(self, name: LockName, answer: Answer, now: Moment) -> Settled {
        match (answer, self.lease().ended_at(now)) {
            // Nothing is granted past the deadline, whatever the store said before it (LIVE-B).
            (Ok(Some(_)), Some(reason)) if !is_on(Mutant::NoOutputGate) => {
                Settled::Failed(Failure::Lost(reason))
            }
            (Ok(Some(granted)), _) => Settled::Granted(Held {
                session: self,
                name,
                granted,
                since: now,
                is_left: false,
            }),
            (Ok(None), _) => Settled::Taken,
            (Err(failure), _) => Settled::Failed(failure),
        }
    }

    /// Whether this claim is kept by the session, and nobody uses it.
    pub(crate) fn is_kept(&self, name: &LockName, claim: ClaimId) -> bool {
        let mine = claim.session == self.shared().id;
        let is_kept = |coordinator: &mut Coordinator| coordinator.is_kept(claim.number);
        mine && self.with(name, is_kept) == Some(true)
    }

    /// Lets the name's coordinator do something, and tells the session's task if there is something to
    /// do for it. `None` when the session is over, and all claims with it.
    fn with<T>(&self, name: &LockName, act: impl FnOnce(&mut Coordinator) -> T) -> Option<T> {
        let (result, stirred) = self.shared().registry.with(name, act)?;
        if stirred {
            // If the task has ended, so have all claims.
            let _ = self.0.commands.send(Command::Work(name.clone()));
        }
        Some(result)
    }

    /// Frees everything and ends the session, within a limit.
    pub(crate) async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        let (done, closed) = oneshot::channel();
        let close = Command::Close { limit, done };
        if self.0.commands.send(close).is_err() {
            return Ok(()); // It has ended by itself.
        }
        closed.await.unwrap_or(Ok(()))
    }
}

/// A lock that this process holds: what a guard keeps.
#[derive(Debug)]
pub(crate) struct Held {
    session: Session,
    name: LockName,
    granted: Granted,
    since: Moment,
    /// Whether it was given back.
    is_left: bool,
}

impl Held {
    pub(crate) fn name(&self) -> &LockName {
        &self.name
    }

    pub(crate) fn token(&self) -> FencingToken {
        self.granted.token
    }

    pub(crate) fn lease(&self) -> &Lease {
        self.session.lease()
    }

    /// For how long it has been held.
    pub(crate) fn time(&self) -> Duration {
        self.now().since(self.since)
    }

    pub(crate) fn is_contended(&self) -> bool {
        self.granted.contended.load(Ordering::Relaxed)
    }

    /// Gives the lock back, without waiting for it: a short critical section and at most a message, so
    /// that it may be called from `Drop`, inside a runtime or outside. Only the first call does anything.
    pub(crate) fn leave(&mut self) {
        if !self.is_left {
            let _ = self.give_back(self.now());
        }
    }

    /// Gives the lock back, and waits until another task of this process has it, or the store has
    /// confirmed it, or the session is over.
    pub(crate) async fn left(&mut self) -> Result<(), LossReason> {
        let now = self.now();
        let confirmation = self.give_back(now);
        // Past the deadline somebody else may have it already (LIVE-B).
        if let Some(reason) = self.lease().ended_at(now) {
            return Err(reason);
        }
        let Some(confirmation) = confirmation else {
            return Ok(());
        };
        match confirmation.await {
            Ok(result) => result,
            Err(_) => Err(self.lease().lost().await),
        }
    }

    fn now(&self) -> Moment {
        self.session.shared().clock.now()
    }

    fn give_back(&mut self, now: Moment) -> Option<Confirmation> {
        self.is_left = true;
        let release = |coordinator: &mut Coordinator| coordinator.release(self.granted.turn, now);
        self.session.with(&self.name, release).flatten()
    }
}

/// What a request has come to.
#[derive(Debug)]
pub(crate) enum Settled {
    Granted(Held),
    Taken,
    Failed(Failure),
}

/// What a request is at once.
#[derive(Debug)]
pub(crate) enum Asked {
    Settled(Settled),
    Pending(Pending),
}

/// A request that has not been answered. Dropping it gives it up (CANCEL). Empty once the caller has the
/// answer.
#[derive(Debug)]
pub(crate) struct Pending(Option<Unanswered>);

#[derive(Debug)]
struct Unanswered {
    session: Session,
    name: LockName,
    number: Number,
    answer: oneshot::Receiver<Answer>,
}

impl Pending {
    /// The claim for which the request waits.
    pub(crate) fn claim_id(&self) -> Option<ClaimId> {
        let Unanswered {
            session,
            name,
            number,
            ..
        } = self.0.as_ref()?;
        let claim = |coordinator: &mut Coordinator| Some(coordinator.claim_of(*number)?.id);
        session.with(name, claim).flatten()
    }

    /// Waits for the answer.
    ///
    /// # Cancel safety
    ///
    /// The answer is taken in the same step in which this returns.
    pub(crate) async fn settled(&mut self) -> Settled {
        let answer = match &mut self.0 {
            Some(unanswered) => (&mut unanswered.answer).await.ok(),
            None => None,
        };
        // The session's task has ended with its runtime.
        let over = Failure::NeverPlaced(LossReason::Closed);
        let Some(Unanswered { session, name, .. }) = self.0.take() else {
            return Settled::Failed(over);
        };
        let now = session.shared().clock.now();
        session.settled(name, answer.unwrap_or(Err(over)), now)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(Unanswered {
            session,
            name,
            number,
            mut answer,
        }) = self.0.take()
        else {
            return;
        };
        if is_on(Mutant::LeakedClaim) {
            return std::mem::forget(answer);
        }
        let now = session.shared().clock.now();
        // From here on nothing is granted to it; what was granted before is given back.
        answer.close();
        let act = |coordinator: &mut Coordinator| match answer.try_recv() {
            Ok(Ok(Some(granted))) => drop(coordinator.release(granted.turn, now)),
            Ok(_) => {}
            Err(_) => coordinator.cancel(number, now),
        };
        session.with(&name, act);
    }
}
