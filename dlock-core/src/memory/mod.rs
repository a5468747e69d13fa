//! The in-memory store: for programs of one process, and as the test double of a program that uses
//! another store.
//!
//! A [`MemoryStore`] is the store; a [`MemoryLink`] is one client's way to it, and a backend. Several
//! clients over one store meet as they would on a real one, by the same rules and with the same
//! guarantees; the link is where a test makes things go wrong. With a
//! [`ManualClock`](crate::ManualClock) a test of a lost lock takes no time:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use dlock_core::memory::{Fault, MemoryStore};
//! use dlock_core::{Client, LossReason, ManualClock, Ttl};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let clock = ManualClock::new();
//! let store = MemoryStore::with_clock(Arc::new(clock.clone()));
//! let link = store.link();
//! let client = Client::builder(link.clone()).clock(Arc::new(clock.clone())).connect().await?;
//! let guard = client.lock("report").await?;
//!
//! link.set(Fault::Silent);
//! clock.advance(Duration::from_secs(4)); // a renewal is sent, and not answered
//! tokio::task::yield_now().await;
//! clock.advance(Duration::from_secs(4));
//! tokio::task::yield_now().await;
//! assert!(guard.is_held());
//! clock.advance(Duration::from_secs(2));
//! assert_eq!(guard.lost().await, LossReason::StoreUnreachable);
//! # Ok::<(), dlock_core::Error>(()) }).unwrap();
//! ```

mod link;
mod session;
mod store;

pub use link::{Fault, MemoryLink};
pub use store::{MemoryStore, Operations};
