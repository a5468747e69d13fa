//! The Redis and Valkey backend of dlock: six-mode locks as Lua scripts.
//!
//! ```no_run
//! # async fn example() -> Result<(), dlock_core::Error> {
//! use dlock_redis::{Redis, RedisOptions};
//!
//! let redis = Redis::connect(RedisOptions::new("localhost", 6379).database(2)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! It needs Redis 7.0 or Valkey 7.2, or newer: one server, with replicas or without, or a Redis
//! Cluster. [`RedisOptions`] has the settings, [`RedisOptions::from_url`] the same as a URL.
//!
//! # What it writes to the server
//!
//! Every key begins with `dlock:` and is of one namespace. A namespace has one or more partitions (1
//! on one server, 16 on a cluster, unless told otherwise), and a lock's name decides its partition.
//! All of a partition's keys share a hash tag, `{<namespace>.<partition>}`.
//!
//! | key | what |
//! | --- | --- |
//! | `dlock:{<namespace>}:format` | JSON: the version of this layout and the number of partitions |
//! | `…:leases` | sorted set: when each session's lease runs out, by the server's clock |
//! | `…:last` | the greatest number given out as a ticket or a token: the one key that stays for ever |
//! | `…:claims` | sorted set: which session has which claims, with mode, ticket, token and owner |
//! | `…:n:<name>` | sorted set: a lock's queue, of its granted and its waiting claims |
//!
//! A free lock has no keys. Keys have no expiry of their own: a lease that has run out counts as
//! absent, and its claims are removed by whoever next wants the lock, renews, or opens a session.
//! Messages go through `PUBLISH` to the channels `dlock:{<namespace>}:s:<session>`. Everything that
//! belongs together happens in one script, which does all of it or nothing.
//!
//! A client has one connection for commands, one for its messages, and a third one when it waits for
//! replicas; on a cluster, one of each to every node in use. A user for it needs the keys and
//! channels `dlock:*`, and the commands of `@scripting`, `@sortedset`, `@string`, `@pubsub`
//! and `@connection`, and `EXISTS`, `INFO` and `TIME`; on a cluster `CLUSTER` and `ASKING` too.
//!
//! # What can go wrong
//!
//! - **A failover loses what was acknowledged.** Redis replicates after it has answered. A master
//!   that dies takes its last writes with it, a lock among them, and the new master grants it to
//!   somebody else. The first holder is told at its next heartbeat, a third of its TTL later at the
//!   latest; until then two believe that they hold the lock. Tokens still rise: a resource that
//!   checks them is safe.
//! - **A server that restarts without its data**, or with old data, does the same.
//! - **The server's clock is stepped.** Forward, leases run out early; backward, a crashed holder's
//!   lock is freed late. Tokens go wrong only when data is lost as well.
//! - **Eviction or an operator deletes keys.** Connecting refuses a server that may evict. Deleting
//!   `…:leases` ends all sessions, and their holders are told; deleting anything else of a lock in
//!   use breaks the promise for that lock.
//! - **A server without memory** (`maxmemory`) refuses new locks, and says so. It still renews and
//!   frees those that exist. One that has too few replicas for `min-replicas-to-write` refuses
//!   everything until they are back, so holders may lose their locks meanwhile.
//! - **A cluster moves a slot.** While it does, locks of that partition answer that they are
//!   unavailable, and nothing is half done. Leases are renewed all the same.
//!
//! # The settings that make it as safe as it can be
//!
//! On the server:
//!
//! - `appendonly yes` with `appendfsync always`, so that a restart loses nothing;
//! - `maxmemory-policy noeviction`, and enough `maxmemory`;
//! - `min-replicas-to-write 1` and a `min-replicas-max-lag` below the TTL, so that a master that is
//!   cut off from its replicas stops granting;
//! - a clock that is slewed, not stepped.
//!
//! Here: `waitaof=1,1` ([`RedisOptions::wait_aof`]), or `wait=1` ([`RedisOptions::wait_replicas`]) on
//! servers without an append-only file. A grant is then reported only when a replica has it. That
//! makes it unlikely that a failover loses it, but not impossible: a replica that did not have it may
//! be the one that is promoted. Where that must not be, let the resource check the tokens
//! ([`dlock_core::Fence`]), or use a store with a consensus protocol.
//!
//! Sentinel is not asked: give an address that always leads to the master.

mod backend;
mod cluster;
mod confirm;
mod connect;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod link;
mod options;
mod options_url;
mod pushes;
mod scripts;
mod session;
mod transport;

pub use backend::Redis;
pub use dlock_core::Tls;
pub use options::{RedisOptions, Topology};
