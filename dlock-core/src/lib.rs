//! core (docs follow)
pub mod backend;
mod claim;
mod client;
mod clock;
mod coordinator;
mod error;
mod guard;
pub mod memory;
pub mod metrics;
mod mode;
#[doc(hidden)]
pub mod mutants;
mod name;
mod request;
mod session;
mod snapshot;
pub mod table;
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
pub use clock::{Clock, ManualClock, Moment, SystemClock};
pub use error::{ConfigError, Error, LockLost, LossReason, StoreError, StoreErrorKind, TimedOut};
pub use guard::Guard;
pub use mode::{COMPATIBLE, Mode, UnknownMode};
pub use name::{InvalidName, LockName, Namespace};
pub use request::{Request, TryRequest};
pub use snapshot::{ClaimSnapshot, LockSnapshot};
pub use token::{Fence, FencingToken, StaleToken};
pub use ttl::Ttl;
