//! The etcd backend of dlock: six-mode locks as leases and transactions.
//!
//! ```no_run
//! # async fn example() -> Result<(), dlock_core::Error> {
//! use dlock_etcd::{Etcd, EtcdOptions};
//!
//! let options = EtcdOptions::new("etcd-1", 2379).endpoint("etcd-2", 2379);
//! let etcd = Etcd::connect(options).await?;
//! # Ok(())
//! # }
//! ```
//!
//! It needs etcd 3.5 or newer; 3.5.28, 3.6.9 or newer is better, and it warns of the faults that older
//! ones have. [`EtcdOptions`] has the settings, [`EtcdOptions::from_url`] the same as a URL. Building it
//! needs `protoc`, the compiler of protocol buffers.
//!
//! # What it writes to the server
//!
//! Every key begins with `dlock/` and is of one namespace.
//!
//! | key | what |
//! | --- | --- |
//! | `dlock/<namespace>/format` | JSON: the version of this layout |
//! | `dlock/<namespace>/base` | a number that only rises: what is added to a revision to make a token |
//! | `…/sessions/<session>` | JSON: whose session it is |
//! | `…/locks/<name>/<mode>/<slot>` | JSON: who holds or awaits the lock, and since when |
//! | `…/withdrawn/<claim>` | empty: a claim whose request may still be on its way, and must not count |
//!
//! In a name, `/`, `%`, spaces and whatever is not ASCII are percent-encoded. The first two keys stay
//! for ever; all others are bound to their session's lease, and the server deletes them when it runs
//! out. A free lock has no keys. Everything that belongs together happens in one transaction.
//!
//! A slot is a session's, and holds one claim after the other: etcd keeps every key that there ever was in its
//! index until it is compacted, and a lock whose claims had a key each grew slower with every acquisition. One
//! about which a message may still be on its way is not used again.
//!
//! A claim's ticket is the revision at which its key was created. Whether it is granted is stored
//! nowhere: it is, when no claim in a conflicting mode has a smaller ticket. Who has to wait watches the
//! nearest of those that are ahead. The server's own lock service is not used: its locks have a lease
//! that nobody renews, and are released without asking whose they are.
//!
//! A client has one connection, to one member at a time, and on it one stream of watches for each
//! session. A user for it needs a role that may read and write the keys with the prefix `dlock/`.
//!
//! etcd does not say unasked that somebody waits. Where tasks of one process meet on a lock, or a claim is
//! kept, the session asks for it: one watch on the lock's keys and one look, until the first who comes.
//! Elsewhere `contended` is not pushed, and nothing is asked.
//!
//! # What can go wrong
//!
//! - **The cluster is restored from a backup**, and has forgotten locks that were granted since. A
//!   session notices that the store has gone back, by its cluster, term and revision, when it next
//!   hears from it, and ends; until then two may believe that they hold the lock. Tokens still rise, as
//!   long as clients' clocks are about right: one that is behind when it makes the store's first token anew,
//!   or was ahead before the data were lost, lets them fall back. Restore it under a new
//!   `--initial-cluster-token`: then it is another cluster. Otherwise a session that comes back to it late,
//!   when others have written more to it than the backup lacked, notices nothing.
//! - **Most members lose their disks** at once, or acknowledge writes that they have not kept (a disk
//!   that lies about `fsync`, `--unsafe-no-fsync`): the same.
//! - **The cluster has no leader.** Nothing is granted, and no lease can be renewed. Leases do not run
//!   out on the server either: a new leader gives each of them its whole TTL again. Clients count from
//!   their last renewal, and tell their holders in time.
//! - **An operator deletes keys or revokes leases.** Deleting a session's key, or revoking its lease,
//!   ends the session, and its holders are told at once. Deleting anything else of a lock in use breaks
//!   the promise for that lock.
//! - **The server's space runs out** (`--quota-backend-bytes`). It raises an alarm, refuses new sessions,
//!   and from 3.5.33 and 3.6.14 on new locks too. It still renews and frees those that exist.
//! - **The history is compacted** often. Locks do not mind. A look at a lock may show a holder without
//!   its token, if that holder's clock was behind another client's.
//! - **A waiter's queue is long.** The server reads all of a lock's claims in the modes that conflict
//!   for each request, and for each look at a claim whose predecessor has gone: its work for one hand-over grows
//!   with the number of waiters, by about a microsecond for each.
//! - **Sessions come and go on one lock.** Each leaves a key in the server's index until that is compacted:
//!   let it compact automatically. It does not by default.
//!
//! # The settings that make it as safe as it can be
//!
//! On the servers:
//!
//! - three or five members on disks of their own, with `fsync` as it is by default;
//! - an election time-out well below the TTL: the server makes no lease shorter than one and a half of
//!   it, which with the default of 1 s is 2 s;
//! - users and roles, or TLS with client certificates, so that nobody else deletes keys;
//! - `--auto-compaction-retention` of an hour or so, and alarms on the space that is left.
//!
//! Here: all members as endpoints, and the schemes or options for TLS. There is nothing to weaken: each
//! grant is committed by Raft, and each read that counts is linearizable.

mod backend;
mod base;
mod claims;
mod connect;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod keys;
mod link;
mod listening;
mod options;
mod options_url;
mod pushes;
mod record;
mod session;
mod slots;
mod transport;
mod txns;
mod version;

pub use backend::Etcd;
pub use dlock_core::Tls;
pub use options::EtcdOptions;
