//! Model checking of the lock protocols.
//!
//! The conformance suite drives the real stores through the schedules that it happens to meet. Here the
//! protocols are small state machines, and the checker (`stateright`) goes through *every* schedule within
//! bounds: each order of messages, each loss, late copy, crash and lapse.
//!
//! - [`claims`]: the clients, which are the same for every store;
//! - [`network`]: what happens to messages;
//! - [`model`]: both put together, with budgets for what goes wrong;
//! - [`properties`]: what must hold, by the ids of the contract;
//! - [`redis`], [`etcd`] with its [`watches`], [`jetstream`]: the protocols, each of which says what it leaves
//!   out;
//! - [`bugs`]: known-bad variants, each of which a property finds;
//! - [`cases`]: the models that are checked, in two sizes: `cargo test` runs the small ones, and
//!   `cargo run --release -p dlock-model` the large ones;
//! - [`explore`]: that there are no cycles, on which PROGRESS rests.
//!
//! One lock is modelled, since locks of different names share nothing but the sessions.

pub mod bugs;
pub mod cases;
pub mod claims;
pub mod etcd;
pub mod explore;
pub mod jetstream;
pub mod model;
pub mod network;
pub mod properties;
pub mod redis;
pub mod watches;

pub use bugs::Bug;
pub use claims::Wish;
pub use model::{Faults, LockModel, Shape};
