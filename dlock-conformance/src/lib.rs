//! Checks what dlock promises, on a store: Redis, Valkey, etcd, NATS JetStream and the in-memory store
//! come with it, and a backend of your own can use the same cases.
//!
//! ```text
//! dlock-conformance run --backend redis              starts the store in a container, runs every case
//! dlock-conformance run --backend jetstream-cluster  three servers, that are killed, frozen, cut off
//! dlock-conformance run --url redis://…              a running deployment; nothing of it is broken
//! dlock-conformance soak --backend etcd --minutes 15 --seed 1
//!                                                    clients at work while everything breaks
//! dlock-conformance list                             the cases, with what each one shows
//! dlock-conformance matrix                           what each store can do, as Markdown
//! ```
//!
//! # How it works
//!
//! A [`Case`](case::Case) is one promise, named after the contract's id for it (`LIVE-B/cut`), and a
//! function from a [`Scene`](scene::Scene) to a [`Verdict`]. It makes clients, breaks their networks,
//! kills their processes, and waits for what must follow, never for a time in which it should. What
//! its clients do goes into a [`History`](history::History), which is printed when it fails. After
//! *every* case two rules are checked over its history: no two holds that conflict overlap
//! (ATOM-A), and of two such holds the later one has the greater token (FENCE).
//!
//! Faults come from outside the library: a TCP [`proxy`] between each client and its store, or a
//! [wire](wrap::Wire) between the core and a backend of the same process; [decorators](wrap) that
//! lose pushes or invent them; signals to real [processes](process).
//!
//! A case that needs what a store does not offer is reported as ignored with the reason, never as
//! passed. That the cases can fail is shown by `tests/mutants.rs`, which breaks the library in known
//! ways and expects the suite to notice.
//!
//! # For a backend of your own
//!
//! Say how to [connect](target::Target::link), and give [`run`] to `main`. Everything else about a
//! [`Target`](target::Target) is optional, and lets more cases run.
//!
//! ```
//! use std::process::{Command, ExitCode};
//!
//! use dlock_conformance::target::{Link, Need, Target, Worker};
//! use dlock_conformance::{Verdict, cli, worker};
//! use dlock_core::memory::{MemoryLink, MemoryStore};
//!
//! #[derive(Debug, Default)]
//! struct MyStore(MemoryStore);
//!
//! impl MyStore {
//!     async fn connect(&self) -> Verdict<MemoryLink> {
//!         Ok(self.0.link()) // your backend
//!     }
//! }
//!
//! #[dlock_core::async_trait]
//! impl Target for MyStore {
//!     fn name(&self) -> &str {
//!         "my-store"
//!     }
//!
//!     async fn link(&self) -> Verdict<Link> {
//!         Ok(Link::new(self.connect().await?))
//!     }
//!
//!     // So that the cases about killed and frozen processes run: this program, as a worker.
//!     async fn worker(&self) -> Verdict<Worker> {
//!         let mut command = Command::new(std::env::current_exe()?);
//!         command.arg(worker::ARGUMENT);
//!         Ok(Worker::new(command))
//!     }
//!
//!     fn lacks(&self, need: Need) -> Option<String> {
//!         // A store that other processes reach does not lack `Need::Processes`.
//!         Some(format!("this example has no {need}"))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     if std::env::args().nth(1).as_deref() == Some(worker::ARGUMENT) {
//!         let work = async { worker::run(MyStore::default().connect().await?).await };
//!         let done = cli::block_on(work);
//!         return ExitCode::from(u8::from(done.is_err()));
//!     }
//!     # let only = dlock_conformance::cli::RunOptions {
//!     #     filter: Some("ONCE/repeated".into()), repeat: 1, ..Default::default()
//!     # };
//!     # return cli::run(std::sync::Arc::new(MyStore::default()), &only).unwrap();
//!     dlock_conformance::run(MyStore::default())
//! }
//! ```
//!
//! Under `cargo test`, make one test of each case: `tests/suite.rs` of this crate does it with
//! [`run_one`](runner::run_one) in thirty lines.

mod actor;
pub mod case;
mod cases;
pub mod check;
pub mod cli;
mod failure;
mod gate;
pub mod history;
pub mod matrix;
pub mod process;
pub mod proxy;
mod raw;
pub mod report;
pub mod runner;
pub mod scene;
pub mod sharing;
pub mod soak;
pub mod stores;
pub mod target;
pub mod timeline;
mod weather;
pub mod worker;
pub mod wrap;

pub use actor::{Actor, Asking, Held};
pub use cli::run_target as run;
pub use failure::{Context, Failure, Verdict};
