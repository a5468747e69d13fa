//! What a store does for the library: the traits that a backend implements.
//!
//! A backend turns claims into the strongest primitive of its store, and nothing more. Renewing,
//! retrying, waiting, time-outs, guards and what happens when a future is dropped are the core's
//! business, once for all backends. The tutorial is in the [crate's documentation](crate).

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Claim, ClaimId, FencingToken, LockName, LockSnapshot, LossReason, Mode, Owner, SessionId,
    StoreError, attempt,
};

/// A connection to one namespace of one store.
///
/// Every future of a backend may be dropped before it is ready: the core gives up an attempt that
/// takes too long. Its effect is unknown then, and so is the state of the connection that it used:
/// the next attempt should not have to wait behind it.
///
/// Until then it is polled, by a task of the core: so one call may wait for another one, as for a
/// connection that whoever needs it first makes. A backend that keeps futures of its own must poll
/// them, or drop them, for as long as anybody can wait for what they hold.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// What it is called in errors, spans and metrics: `redis`.
    fn kind(&self) -> &'static str;

    /// What the store can do. It does not change.
    fn capabilities(&self) -> Capabilities;

    /// Opens a session: makes its lease, and lets the store's pushes for it reach `mailbox` for as
    /// long as the returned session exists.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be reached or refuses.
    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError>;

    /// Who holds this lock and who waits for it, without changing anything.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be reached or refuses.
    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError>;

    /// The names of the locks in use (somebody holds them or waits for them), in no order.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be reached or refuses.
    async fn names(&self) -> Result<Vec<LockName>, StoreError>;
}

#[async_trait]
impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn kind(&self) -> &'static str {
        (**self).kind()
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        (**self).open(terms, mailbox).await
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        (**self).inspect(name).await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        (**self).names().await
    }
}

/// A session as the store knows it: one lease, and the claims that live and die with it.
#[async_trait]
pub trait Session: Debug + Send + Sync + 'static {
    /// Renews the lease, and says how long it now lasts from the moment at which the store did so. No
    /// time at all counts as [`StoreError::lapsed`].
    ///
    /// # Errors
    ///
    /// [`StoreError::lapsed`] when there is no lease any more. It must never be made again under the
    /// same [`SessionId`].
    async fn renew(&self) -> Result<Duration, StoreError>;

    /// Asks for a lock. The same claim may be requested again: it stays one claim, and the answer is
    /// its state now (ONCE). In the same atomic step the store checks that the session's lease
    /// stands, and that the claim has not been withdrawn.
    ///
    /// # Errors
    ///
    /// [`StoreError`], whose kind says whether the request may have taken effect.
    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError>;

    /// The state of a claim now: the truth, after a push or because time has passed. It also frees
    /// what lapsed sessions left of this lock, and so may grant the claim.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError>;

    /// Whether the store pushes [`Push::Contended`] for every granted claim, without being asked to. If it
    /// does not, the core [asks](Session::listen) where it needs to know.
    fn pushes_contended(&self) -> bool {
        false
    }

    /// From now on, pushes [`Push::Contended`] when somebody in another session waits behind this granted
    /// claim in a mode that conflicts: if somebody does already, before this returns, and also when it cannot
    /// be known any more. Asked for where the process would pass the claim on among its tasks or keep it; never
    /// where [`pushes_contended`](Session::pushes_contended).
    ///
    /// # Errors
    ///
    /// [`StoreError`], as from every store that cannot tell: the core then passes the claim on as if
    /// somebody waited.
    async fn listen(&self, claim: &Claim) -> Result<(), StoreError> {
        let what = format!("nobody tells that {} is contended", claim.name);
        Err(StoreError::refused(what))
    }

    /// Takes a claim out, waiting or granted: release, cancel, time-out and drop are all this. Taking
    /// out a claim that is not there succeeds; no other claim is ever touched (ATOM-B).
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the core tries again until it succeeds or the session has lapsed.
    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError>;

    /// Whether the store can [`replace`](Session::replace) a claim. The core asks once.
    fn replaces(&self) -> bool {
        false
    }

    /// [Withdraws](Session::withdraw) one claim of a lock and [requests](Session::request) another of the
    /// same lock, to wait in turn, in this order and in one atomic step: those who waited behind the first
    /// come before the second (FAIR). For a process that gives a lock back and asks for it anew. Called
    /// only where the first one's request was answered, and neither has been asked for this before; never
    /// where the session does not [replace](Session::replaces).
    ///
    /// # Errors
    ///
    /// [`StoreError`], whose kind is true of both: a refusal says that neither has happened. The core
    /// then goes on with each by itself.
    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        let _ = leaving;
        let what = format!("nobody replaces a claim of {}", claim.name);
        Err(StoreError::refused(what))
    }

    /// By how much the order of a grant is above that of every earlier grant that it conflicts with, at
    /// least. Each number of it is good for 1,024 tokens of hand-overs within the process (FENCE), after which a
    /// claim goes back. The core asks once.
    ///
    /// A store that says more than 1 must not run ahead of the time by it: on the scale of microseconds
    /// there is room for a million grants a second, divided by this.
    fn order_step(&self) -> u64 {
        1
    }

    /// Ends the session: its lease and all of its claims are gone, and whom that grants is granted.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what could not be freed lapses with the lease.
    async fn close(&self) -> Result<(), StoreError>;
}

/// What [`Backend::open`] returns.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The session.
    pub session: Arc<dyn Session>,
    /// How long its lease lasts, as the store granted it: not always what was asked for.
    pub ttl: Duration,
}

/// What a client asks of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// The session's identity.
    pub id: SessionId,
    /// How long the lease should last without a renewal.
    pub ttl: Duration,
    /// Whose session it is.
    pub owner: Owner,
}

impl SessionTerms {
    /// How long the core waits for the answer to one call of this session before it gives the attempt
    /// up and drops its future: a quarter of the TTL, at most 5 s. A backend that waits for something
    /// itself must be done by then.
    #[must_use]
    pub fn attempt_limit(&self) -> Duration {
        attempt::limit(self.ttl)
    }
}

/// Whether a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Take a place in the queue and wait for the turn.
    InTurn,
    /// If the lock is not free now, change nothing and say so.
    Never,
}

/// What the store says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is granted.
    Granted {
        /// The grant's token.
        token: FencingToken,
    },
    /// It has its place in the queue.
    Waiting {
        /// After this time a blocker's lease could have run out: look then. `None` where the store
        /// cannot tell; the core looks every few seconds anyway (WAKE), and never more often than
        /// every few milliseconds.
        look_after: Option<Duration>,
    },
    /// It is not there: a request that may not wait found the lock taken, the claim was withdrawn,
    /// or (asked with [`Session::status`]) it never arrived.
    Absent,
}

/// Whether every attempt to request a claim has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// All are: nothing can arrive any more.
    Answered,
    /// One may still be on its way. The withdraw must leave a mark that lives as long as the session
    /// and makes the store refuse the late request (ONCE).
    Unanswered,
}

/// What a store can do, so that a program is told what it cannot (HONEST).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The modes that it grants.
    pub modes: &'static [Mode],
    /// The shortest lease that makes sense on it.
    pub min_ttl: Duration,
    /// How much later than the TTL a crashed holder's lock may be freed (LIVE-A).
    pub slack: Duration,
    /// Who can reach the store.
    pub reach: Reach,
    /// When a grant counts as kept, in words, for the support matrix (COMMITTED).
    pub durability: String,
}

/// Who can reach a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only the process that it lives in.
    Process,
    /// Every process that can connect to it.
    Network,
}

/// A push from the store, for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// The claim is granted, and that is committed. Counts as a grant while the session's deadline
    /// stands. It may be told more than once, and after the claim was withdrawn.
    Granted(ClaimId, FencingToken),
    /// Somebody in another session waits behind this granted claim in a mode that conflicts. The process
    /// does not pass it on to tasks that ask later, and gives it back if it only keeps it.
    Contended(ClaimId),
    /// Something changed for this waiting claim: look. It proves nothing.
    Changed(ClaimId),
    /// The session is over.
    Lost(LossReason),
}

/// How a backend's pushes reach a session. Clones reach the same one; pushes to a session that is no
/// more vanish.
#[derive(Clone, Debug)]
pub struct Mailbox(tokio::sync::mpsc::UnboundedSender<Push>);

/// The other end of a [`Mailbox`].
#[derive(Debug)]
pub struct Inbox(tokio::sync::mpsc::UnboundedReceiver<Push>);

impl Mailbox {
    /// A mailbox and its other end. The core makes them; a backend's own tests, and wrappers around
    /// a backend, may too.
    #[must_use]
    pub fn new() -> (Mailbox, Inbox) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (Mailbox(sender), Inbox(receiver))
    }

    /// Pushes [`Push::Granted`]. Only after the commit.
    pub fn granted(&self, claim: ClaimId, token: FencingToken) {
        self.push(Push::Granted(claim, token));
    }

    /// Pushes [`Push::Contended`].
    pub fn contended(&self, claim: ClaimId) {
        self.push(Push::Contended(claim));
    }

    /// Pushes [`Push::Changed`].
    pub fn changed(&self, claim: ClaimId) {
        self.push(Push::Changed(claim));
    }

    /// Pushes [`Push::Lost`].
    pub fn lost(&self, reason: LossReason) {
        self.push(Push::Lost(reason));
    }

    /// Pushes anything: for a wrapper that passes on what it receives.
    pub fn push(&self, push: Push) {
        // Nobody listens: the session is over, and its claims with it.
        let _ = self.0.send(push);
    }
}

impl Inbox {
    /// The next push; `None` once every [`Mailbox`] is gone and all is read.
    ///
    /// # Cancel safety
    ///
    /// A push is either returned or stays.
    pub async fn next(&mut self) -> Option<Push> {
        self.0.recv().await
    }

    /// The next push that is there already.
    pub(crate) fn next_now(&mut self) -> Option<Push> {
        self.0.try_recv().ok()
    }
}
