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

use crate::coordinator::{Answer, Backoff, Failure, Number};
use crate::mutants::{Mutant, is_on};
use crate::sync::{AtomicBool, AtomicU64};
use crate::{
    Backend, Claim, ClaimId, Clock, LockName, LossReason, Mailbox, Mode, Owner, SessionId,
    SessionTerms, StoreError, StoreErrorKind, Wait, attempt,
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
    last_number: AtomicU64,
}

/// A user's hold on a session: the client has one, and so has every guard and request. When the last
/// one is gone, the task frees what is left and ends.
#[derive(Clone, Debug)]
pub(crate) struct Session {
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
    ) -> Result<Self, StoreError> {
        let limit = ttl.clamp(Duration::from_secs(5), Duration::from_secs(10));
        let mut fault = None;
        let trying = async {
            let mut failures = 0;
            loop {
                match Self::open_once(backend, clock.clone(), ttl, owner.clone()).await {
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
            registry: Registry::new(backoff(opened.ttl)),
            last_number: AtomicU64::new(0),
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
        Ok(Self { shared, commands })
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.shared.lease
    }

    /// Asks for a lock. Dropping the answer withdraws the request (CANCEL).
    pub(crate) fn request(&self, name: &LockName, mode: Mode, owner: Owner, wait: Wait) -> Pending {
        let number = self.shared.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let id = ClaimId {
            session: self.shared.id,
            number,
        };
        let claim = Claim {
            id,
            name: name.clone(),
            mode,
            owner,
        };
        let (caller, answer) = oneshot::channel();
        let contended = Arc::new(AtomicBool::new(false));
        let now = self.shared.clock.now();
        let asked = self.shared.registry.add(name, number, |coordinator| {
            coordinator.request(claim, wait, caller, contended.clone(), now);
        });
        // Where the registry is closed, the caller's end was dropped: `answer` says so at once.
        if asked.is_some() {
            self.work(name);
        }
        let claim = ClaimHandle {
            session: self.clone(),
            name: name.clone(),
            number,
            contended,
        };
        Pending {
            claim: Some(claim),
            answer,
        }
    }

    /// Frees everything and ends the session, within a limit.
    pub(crate) async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { limit, done }).is_err() {
            return Ok(()); // It has ended by itself.
        }
        closed.await.unwrap_or(Ok(()))
    }

    fn work(&self, name: &LockName) {
        // If the task has ended, so have all claims.
        let _ = self.commands.send(Command::Work(name.clone()));
    }
}

/// A claim of this process: what a guard and an unanswered request have in common.
#[derive(Debug)]
pub(crate) struct ClaimHandle {
    session: Session,
    name: LockName,
    number: Number,
    contended: Arc<AtomicBool>,
}

impl ClaimHandle {
    pub(crate) fn name(&self) -> &LockName {
        &self.name
    }

    pub(crate) fn lease(&self) -> &Lease {
        self.session.lease()
    }

    pub(crate) fn is_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed)
    }

    /// Takes the claim out, without waiting for it: a short critical section and a message, so that
    /// it may be called from `Drop`, inside a runtime or outside.
    pub(crate) fn withdraw(&self) {
        self.start_withdraw(None);
    }

    /// Takes the claim out, and waits until the store has confirmed it or the session is over.
    pub(crate) async fn withdrawn(&self) -> Result<(), LossReason> {
        let (confirmed, confirmation) = oneshot::channel();
        self.start_withdraw(Some(confirmed));
        match confirmation.await {
            Ok(result) => result,
            Err(_) => Err(self.lease().lost().await),
        }
    }

    fn start_withdraw(&self, confirmed: Option<oneshot::Sender<Result<(), LossReason>>>) {
        let registry = &self.session.shared.registry;
        let asked = registry.with(&self.name, |coordinator| {
            coordinator.withdraw(self.number, confirmed)
        });
        if asked == Some(true) {
            self.session.work(&self.name);
        }
    }
}

/// A request that has not been answered. Dropping it withdraws the claim.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Taken when the claim becomes a guard's.
    claim: Option<ClaimHandle>,
    answer: oneshot::Receiver<Answer>,
}

/// What a request has come to.
#[derive(Debug)]
pub(crate) enum Settled {
    Granted(ClaimHandle, crate::FencingToken),
    Taken,
    Failed(Failure),
}

impl Pending {
    /// The claim that was minted for the request, until it is settled.
    pub(crate) fn claim_id(&self) -> Option<ClaimId> {
        let claim = self.claim.as_ref()?;
        Some(ClaimId {
            session: claim.session.shared.id,
            number: claim.number,
        })
    }

    /// Waits for the answer.
    ///
    /// # Cancel safety
    ///
    /// The answer is taken in the same step in which this returns.
    pub(crate) async fn settled(&mut self) -> Settled {
        let answer = (&mut self.answer).await;
        let Some(claim) = self.claim.take() else {
            return Settled::Taken;
        };
        match (answer, claim.lease().ended()) {
            // Nothing is granted past the deadline, whatever the store said before it (LIVE-B).
            (Ok(Ok(Some(_))), Some(reason)) if !is_on(Mutant::NoOutputGate) => {
                Settled::Failed(Failure::Lost(reason))
            }
            (Ok(Ok(Some(token))), _) => Settled::Granted(claim, token),
            (Ok(Ok(None)), _) => Settled::Taken,
            (Ok(Err(failure)), _) => Settled::Failed(failure),
            // The session ended before it could take the request.
            (Err(_), reason) => {
                Settled::Failed(Failure::NeverPlaced(reason.unwrap_or(LossReason::Closed)))
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if is_on(Mutant::LeakedClaim) {
            return;
        }
        if let Some(claim) = &self.claim {
            claim.withdraw();
        }
    }
}
