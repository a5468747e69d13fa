//! The NATS JetStream backend of dlock: six-mode locks as documents that change by compare-and-set.
//!
//! ```no_run
//! # async fn example() -> Result<(), dlock_core::Error> {
//! use dlock_jetstream::{JetStream, JetStreamOptions};
//!
//! let jetstream = JetStream::connect(JetStreamOptions::new("localhost", 4222).replicas(3)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! It needs nats-server 2.11 or newer with JetStream, because leases are TTLs of single messages: one
//! server, or a cluster. [`JetStreamOptions`] has the settings, [`JetStreamOptions::from_url`] the same
//! as a URL. TTLs are whole seconds, at least one; a shorter or broken one is rounded up.
//!
//! # What it writes to the server
//!
//! A namespace is one key-value bucket, `dlock-<namespace>`, made when it is missing (in the namespace, a
//! `.` is written `_d` and a `_` is written `__`).
//!
//! | key | what |
//! | --- | --- |
//! | `format` | JSON: the version of this layout |
//! | `locks.<name>` | JSON: a lock's claims, with mode, ticket, token and owner, the last number given out, and up to which sequence knocks are void |
//! | `sessions.<session>` | JSON: whose session it is, renewed every third of its TTL; or that it is dead |
//!
//! In a lock's name every character other than letters, digits, `-`, `_` and `/` is written as `=` and two
//! hexadecimal digits for each byte of it. So `nats kv get dlock-default locks.nightly-report` shows who
//! holds the lock and who waits for it.
//!
//! Nothing stays for ever: the document of a free lock goes a day after its last use, a session's key
//! when its TTL is over, a dead session's mark after an hour. Messages go to the subjects
//! `dlock.<namespace>.s.<session>`, and nobody keeps them: grants, news that somebody waits, and *knocks*, with which a
//! client asks the holder to let its claim into the document. There are no consumers and no watches.
//!
//! A client has one connection. A user for it needs to publish to `$KV.dlock-<namespace>.>`,
//! `$JS.API.STREAM.INFO.*`, `$JS.API.STREAM.CREATE.*` (to make the bucket), `$JS.API.STREAM.MSG.GET.*`,
//! `$JS.API.DIRECT.GET.>` and `dlock.<namespace>.>`, and to subscribe to `_INBOX.>` and
//! `dlock.<namespace>.>`.
//!
//! # What can go wrong
//!
//! - **A bucket with one replica** is as lasting as its server's disk, and cannot be used while that server
//!   is down: locks are lost when their sessions cannot renew. Connecting to a cluster warns of it.
//! - **A bucket in memory** is lost when its servers restart. Connecting warns of it.
//! - **Servers that lose power together** may lose writes that they acknowledged: JetStream writes to disk
//!   some time later (`sync_interval`, 2 minutes unless set). A lock can be lost with them, and be granted
//!   to somebody else; tokens still rise, and a resource that checks them is safe.
//! - **A server's clock is stepped**, or the clocks of a cluster's servers differ. Leases run out early or
//!   late by as much; above a tenth of the TTL, two may believe for a moment that they hold the lock. Tokens
//!   go wrong only when data is lost as well.
//! - **Somebody deletes keys.** Deleting a session's key ends that session: its holder is told at its next
//!   renewal, a third of its TTL later at the latest. Deleting a lock's key breaks the promise for that
//!   lock. The bucket does not allow to delete single messages, but it can be purged and removed.
//! - **A lock moves to another kind of store, or its document is lost, within the time of one question.** A
//!   session asks the server for the time when it opens, and may number a lock's first token ahead of it by as
//!   much as the question took. What is granted sooner elsewhere could get a lower one.
//! - **A cluster elects a leader.** Until then (some seconds) nothing is granted or renewed; a TTL shorter
//!   than that does not survive it.
//! - **Thousands wait for one lock.** Each change writes the whole document, some 250 bytes a claim. One that
//!   is longer than the server's `max_payload` is refused, and says so.
//!
//! # The settings that make it as safe as it can be
//!
//! On the servers: three of them, `sync_interval: always`, and clocks that are slewed, not stepped. And
//! `cluster { ping_interval: 5s }`: by default a server needs a minute and more to see that a connection
//! to another one has died in silence, and takes no new one from it until then. After a network that was
//! cut has come back, that prolongs the time without a leader.
//!
//! Here: `replicas=3` ([`JetStreamOptions::replicas`]), so that a grant is reported only when a majority of
//! three has it; and a TTL of 10 s or more, which outlasts an election. Where two holders must never act
//! at once, let the resource check the tokens ([`dlock_core::Fence`]).

mod backend;
mod bucket;
mod connect;
mod documents;
mod draft;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod knocks;
mod leases;
mod link;
mod options;
mod options_url;
mod pace;
mod pushes;
mod reads;
mod server_time;
mod session;
mod work;

pub use backend::JetStream;
pub use dlock_core::Tls;
pub use options::JetStreamOptions;
