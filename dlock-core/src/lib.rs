//! The core of dlock: everything about distributed locks that does not depend on the store.
//!
//! Programs use the facade, the package `dlock-sdk`; this crate is for those who write a backend for
//! another store, and holds the [in-memory store](memory) that also serves as a test double.
//!
//! # Who does what
//!
//! ```text
//!  user ── client.lock(name) ──► coordinator ──► session ──► backend ──► store
//!                                one per name    one lease    what you
//!             guard ◄── grant ── in a process    per client   write
//! ```
//!
//! The core mints claims, keeps them in order, renews the lease, watches the deadline, repeats what
//! went unanswered, withdraws what was dropped, looks again where a push may have been lost, and tells
//! guards of a loss. A [`Backend`] turns one claim into the strongest primitive of its store: there is no
//! loop in it, no retry, no timer, and no queue of its own.
//!
//! # Writing a backend
//!
//! Two traits: [`Backend`] opens sessions and shows locks; [`Session`] is one lease with its claims. Five
//! rules decide whether the result is a lock:
//!
//! 1. **One atomic step** checks that the session's lease stands, that the claim was not withdrawn, and
//!    decides by the rule of [`table::LockTable`]: granted if compatible with every claim ahead, waiting
//!    ones included (ATOM-A, FAIR).
//! 2. **Everything is idempotent by claim id** (ONCE): a request for a claim that is there answers its
//!    state; a withdraw of one that is not there succeeds. With [`Attempts::Unanswered`] a withdraw
//!    leaves a mark, as old as the session, against the copy that may still arrive.
//! 3. **A lapsed lease counts as absent everywhere**, whether or not anybody has cleaned it up, and is
//!    never made again under the same id. A request or look frees what lapsed sessions left
//!    of *that* lock, so that the next waiter needs no third party (LIVE-A).
//! 4. **Tokens only rise** (FENCE): numbers from [`table::Stamp`], or another order of the store's on the
//!    scale of microseconds since 1970.
//! 5. **Push after the commit, or not at all** (WAKE, COMMITTED). Pushes make it fast; [`Session::status`]
//!    makes it right.
//!
//! Errors say what may be concluded from them ([`StoreErrorKind`]): *ambiguous* when it may have taken
//! effect, *unavailable* when it did not but may later, *refused* when it will not, *lapsed* when the
//! lease is gone.
//!
//! Here is a whole one, over a store that is a map behind a mutex. It has no pushes: the core looks
//! again by itself.
//!
//! ```
//! use std::collections::{HashMap, HashSet};
//! use std::sync::{Arc, Mutex};
//! use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
//!
//! use dlock_core::table::{LockTable, Stamp};
//! use dlock_core::*;
//!
//! /// The store. On a real one, each `lock()` below is one script, transaction or compare-and-set.
//! #[derive(Debug, Default)]
//! struct Store {
//!     tables: HashMap<LockName, LockTable>,
//!     leases: HashMap<SessionId, Lease>,
//! }
//!
//! #[derive(Debug)]
//! struct Lease {
//!     lapses: Instant,
//!     /// The marks of rule 2: they are as old as the session.
//!     withdrawn: HashSet<ClaimId>,
//! }
//!
//! impl Store {
//!     /// The session's lease, if it stands. What lapsed is gone, whoever asks (rule 3).
//!     fn lease(&mut self, session: SessionId) -> Result<&mut Lease, StoreError> {
//!         self.leases.retain(|_, lease| lease.lapses > Instant::now());
//!         self.leases.get_mut(&session).ok_or_else(StoreError::lapsed)
//!     }
//!
//!     /// The lock's table, without what lapsed sessions left in it (rule 3).
//!     fn table(&mut self, name: &LockName) -> &mut LockTable {
//!         self.leases.retain(|_, lease| lease.lapses > Instant::now());
//!         let table = self.tables.entry(name.clone()).or_default();
//!         let sessions: HashSet<SessionId> = table.claims().map(|claim| claim.id.session).collect();
//!         for gone in sessions.into_iter().filter(|session| !self.leases.contains_key(session)) {
//!             table.expire(gone, stamp());
//!         }
//!         table
//!     }
//! }
//!
//! /// The order on the scale of microseconds since 1970 (rule 4).
//! fn stamp() -> Stamp {
//!     let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
//!     Stamp { order: since_1970.as_micros() as u64, millis: since_1970.as_millis() as u64 }
//! }
//!
//! #[derive(Clone, Debug, Default)]
//! struct Shelf(Arc<Mutex<Store>>);
//!
//! #[async_trait]
//! impl Backend for Shelf {
//!     fn kind(&self) -> &'static str {
//!         "shelf"
//!     }
//!
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities {
//!             modes: &Mode::ALL,
//!             min_ttl: Duration::from_millis(100),
//!             slack: Duration::from_millis(100),
//!             reach: Reach::Process,
//!             durability: "none".into(),
//!         }
//!     }
//!
//!     async fn open(&self, terms: &SessionTerms, _: Mailbox) -> Result<Opened, StoreError> {
//!         let lease = Lease { lapses: Instant::now() + terms.ttl, withdrawn: HashSet::new() };
//!         self.0.lock().unwrap().leases.insert(terms.id, lease);
//!         let session = ShelfSession { shelf: self.clone(), id: terms.id, ttl: terms.ttl };
//!         Ok(Opened { session: Arc::new(session), ttl: terms.ttl })
//!     }
//!
//!     async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
//!         let mut store = self.0.lock().unwrap();
//!         let shown = store.table(name).claims().map(|claim| ClaimSnapshot {
//!             id: claim.id,
//!             mode: claim.mode,
//!             owner: claim.owner.clone(),
//!             since: UNIX_EPOCH + Duration::from_millis(claim.since),
//!             token: claim.token,
//!             kept: false,
//!         });
//!         let (holders, waiters) = shown.partition(|claim| claim.token.is_some());
//!         Ok(LockSnapshot { name: name.clone(), holders, waiters })
//!     }
//!
//!     async fn names(&self) -> Result<Vec<LockName>, StoreError> {
//!         let mut store = self.0.lock().unwrap();
//!         let mut names: Vec<LockName> = store.tables.keys().cloned().collect();
//!         names.retain(|name| !store.table(name).is_empty());
//!         Ok(names)
//!     }
//! }
//!
//! #[derive(Debug)]
//! struct ShelfSession {
//!     shelf: Shelf,
//!     id: SessionId,
//!     ttl: Duration,
//! }
//!
//! fn outcome(table: &LockTable, claim: &Claim) -> Outcome {
//!     match table.get(claim.id) {
//!         None => Outcome::Absent,
//!         Some(entry) => match entry.token {
//!             Some(token) => Outcome::Granted { token },
//!             None => Outcome::Waiting { look_after: Some(Duration::from_millis(10)) },
//!         },
//!     }
//! }
//!
//! #[async_trait]
//! impl Session for ShelfSession {
//!     async fn renew(&self) -> Result<Duration, StoreError> {
//!         let mut store = self.shelf.0.lock().unwrap();
//!         store.lease(self.id)?.lapses = Instant::now() + self.ttl;
//!         Ok(self.ttl)
//!     }
//!
//!     async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
//!         let mut store = self.shelf.0.lock().unwrap();
//!         let lease = store.lease(self.id)?; // rule 1
//!         if lease.withdrawn.contains(&claim.id) {
//!             return Ok(Outcome::Absent); // rule 2
//!         }
//!         let table = store.table(&claim.name);
//!         let known = table.get(claim.id).is_some();
//!         if known || wait == Wait::InTurn || table.admits(claim.mode) {
//!             table.request(claim.id, claim.mode, &claim.owner, stamp());
//!         }
//!         Ok(outcome(table, claim))
//!     }
//!
//!     async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
//!         let mut store = self.shelf.0.lock().unwrap();
//!         store.lease(self.id)?;
//!         Ok(outcome(store.table(&claim.name), claim))
//!     }
//!
//!     async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
//!         let mut store = self.shelf.0.lock().unwrap();
//!         let lease = store.lease(self.id)?;
//!         if attempts == Attempts::Unanswered {
//!             lease.withdrawn.insert(claim.id); // rule 2
//!         }
//!         store.table(&claim.name).withdraw(claim.id, stamp());
//!         Ok(())
//!     }
//!
//!     async fn close(&self) -> Result<(), StoreError> {
//!         self.shelf.0.lock().unwrap().leases.remove(&self.id); // frees its claims by rule 3
//!         Ok(())
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let shelf = Shelf::default();
//! let alice = Client::builder(shelf.clone()).label("alice").connect().await?;
//! let bob = Client::builder(shelf).label("bob").connect().await?;
//! let guard = alice.lock("book").await?;
//! assert!(bob.lock("book").try_now().await?.is_none());
//! let (_, second) = tokio::join!(guard.release(), async { bob.lock("book").await });
//! assert!(second?.is_held());
//! # Ok::<(), Error>(()) }).unwrap();
//! ```
//!
//! Then let `dlock-conformance` judge it: it runs every guarantee's cases against a backend in a few
//! lines.

// The tests in here run on the real Tokio; `cargo test NAME` builds them in `dlock-interleavings` too.
#![cfg(not(all(test, shuttle)))]

mod attempt;
mod backend;
mod claim;
mod client;
mod clock;
mod connection;
mod coordinator;
mod error;
mod guard;
pub mod memory;
mod metrics;
mod mode;
#[doc(hidden)]
pub mod mutants;
mod name;
mod patience;
mod request;
mod session;
mod snapshot;
mod sync;
pub mod table;
mod tls;
mod token;
mod ttl;
pub mod url;

pub use async_trait::async_trait;

pub use backend::{
    Attempts, Backend, Capabilities, Inbox, Mailbox, Opened, Outcome, Push, Reach, Session,
    SessionTerms, Wait,
};
pub use claim::{Claim, ClaimId, InvalidId, Owner, SessionId};
pub use client::{Client, ClientBuilder, ClientOptions};
pub use clock::{Clock, ManualClock, Moment, SystemClock, wall_clock};
pub use connection::SharedConnection;
pub use error::{ConfigError, Error, LockLost, LossReason, StoreError, StoreErrorKind, TimedOut};
pub use guard::Guard;
pub use mode::{COMPATIBLE, Mode, UnknownMode};
pub use name::{InvalidName, LockName, Namespace};
pub use patience::Patience;
pub use request::{Request, TryRequest};
pub use snapshot::{ClaimSnapshot, LockSnapshot};
pub use tls::Tls;
pub use token::{Fence, FencingToken, InvalidToken, StaleToken};
pub use ttl::Ttl;
