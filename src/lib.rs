//! Distributed locks on the store that you already run.
//!
//! ```
//! use dlock::Mode;
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! // `redis://localhost:6379?ttl=10s` is the same program on Redis, `etcd://…` on etcd, `nats://…` on NATS.
//! let client = dlock::connect("memory://jobs?ttl=10s").await?;
//!
//! let guard = client.lock("nightly-report").await?; // exclusive, waits its turn
//! println!("show the resource token {}", guard.token());
//! guard.release().await?; // or drop it
//!
//! let reader = client.lock("catalogue").mode(Mode::ProtectedRead).timeout(Duration::from_secs(5));
//! let reader = reader.await?;
//!
//! let Some(guard) = client.lock("migrate").try_now().await? else { return Ok(()) };
//! guard.protect(async { /* stopped when the lock is lost */ }).await?;
//! # drop(reader);
//! # Ok::<(), dlock::Error>(()) }).unwrap();
//! ```
//!
//! # Stores
//!
//! | feature | URL | store |
//! | --- | --- | --- |
//! | always there | `memory://`, `memory://NAME` | this process alone; also the [test double](memory) |
//! | `redis` | `redis://`, `rediss://`, `valkey://`, `valkeys://` | Redis 7 and later, Valkey |
//! | `etcd` | `etcd://`, `etcds://` | etcd 3.5 and later; building it needs `protoc` |
//! | `jetstream` | `nats://`, `tls://` | NATS JetStream, nats-server 2.11 and later |
//!
//! Options that mean the same on every store: `ttl` (how long a lease lasts without a renewal; `10s`),
//! `label` (what [`inspect`](Client::inspect) and errors call this client), `namespace` (whose locks they
//! are; `default`). Each store's module lists its own. What a URL can say, a typed builder can:
//! [`Client::builder`] takes any [`Backend`].
//!
//! # What holds, and what does not
//!
//! The guarantees, and the settings that make each store as safe as it can be, are in the README and in
//! each store's module. In one sentence: no lock with a lease can exclude a process that was stalled
//! past its deadline, so show [`Guard::token`] to the resource, and let it refuse stale ones with a
//! [`Fence`].

pub use dlock_core::*;

#[cfg(feature = "etcd")]
pub use dlock_etcd as etcd;
#[cfg(feature = "jetstream")]
pub use dlock_jetstream as jetstream;
#[cfg(feature = "redis")]
pub use dlock_redis as redis;

use dlock_core::memory::MemoryStore;
use dlock_core::url::StoreUrl;

/// Every scheme that is known, the feature that it needs (`None`: none), and whether it is compiled in.
const SCHEMES: &[(&str, Option<&str>, bool)] = &[
    ("memory", None, true),
    ("redis", Some("redis"), cfg!(feature = "redis")),
    ("rediss", Some("redis"), cfg!(feature = "redis")),
    ("valkey", Some("redis"), cfg!(feature = "redis")),
    ("valkeys", Some("redis"), cfg!(feature = "redis")),
    ("etcd", Some("etcd"), cfg!(feature = "etcd")),
    ("etcds", Some("etcd"), cfg!(feature = "etcd")),
    ("nats", Some("jetstream"), cfg!(feature = "jetstream")),
    ("tls", Some("jetstream"), cfg!(feature = "jetstream")),
];

/// Connects to the store that the URL names.
///
/// Must be called in a Tokio runtime with its timer (and, for stores behind a network, its I/O)
/// enabled.
///
/// # Errors
///
/// [`Error::Config`] when the URL cannot be read, names a store that is not compiled in, or has an
/// option that the store does not know; [`Error::Store`] when the store cannot be reached or refuses. No
/// error repeats a password.
///
/// # Cancel safety
///
/// Dropping it leaves nothing behind but a lease that lapses by itself.
pub async fn connect(url: &str) -> Result<Client, Error> {
    let mut url = StoreUrl::parse(url)?;
    let options = match url.scheme() {
        scheme if is_compiled_in(scheme) => ClientOptions::from_url(&mut url)?,
        scheme => return Err(unknown(scheme).into()),
    };
    match url.scheme() {
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "valkey" | "valkeys" => {
            let store = dlock_redis::RedisOptions::from_url(&mut url)?;
            url.finish()?;
            let store = dlock_redis::Redis::connect(store).await?;
            Client::builder(store).options(options).connect().await
        }
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => {
            let store = dlock_etcd::EtcdOptions::from_url(&mut url)?;
            url.finish()?;
            let store = dlock_etcd::Etcd::connect(store).await?;
            Client::builder(store).options(options).connect().await
        }
        #[cfg(feature = "jetstream")]
        "nats" | "tls" => {
            let store = dlock_jetstream::JetStreamOptions::from_url(&mut url)?;
            url.finish()?;
            let store = dlock_jetstream::JetStream::connect(store).await?;
            Client::builder(store).options(options).connect().await
        }
        _ => {
            let store = MemoryStore::from_url(&mut url)?;
            url.finish()?;
            Client::builder(store.link())
                .options(options)
                .connect()
                .await
        }
    }
}

fn is_compiled_in(scheme: &str) -> bool {
    SCHEMES
        .iter()
        .any(|(known, _, compiled)| *known == scheme && *compiled)
}

fn unknown(scheme: &str) -> ConfigError {
    let compiled: Vec<String> = SCHEMES
        .iter()
        .filter(|(.., compiled)| *compiled)
        .map(|(scheme, ..)| format!("{scheme}://"))
        .collect();
    let feature = SCHEMES
        .iter()
        .find(|(known, ..)| *known == scheme)
        .and_then(|(_, f, _)| *f);
    let remedy = match feature {
        Some(feature) => format!("switch on the feature `{feature}` of dlock-sdk"),
        None => "choose one of these".to_owned(),
    };
    ConfigError::new(
        format!("store URL: scheme {scheme}"),
        format!("no such store is compiled in; {} are", compiled.join(", ")),
        remedy,
    )
}
