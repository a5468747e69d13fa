//! Opening the store at a URL, with the backend that its scheme names.

// Without any store there is nothing to open, and most of this is not used.
#![cfg_attr(
    not(feature = "containers"),
    allow(dead_code, unreachable_code, unused_mut, unused_variables)
)]

use std::sync::Arc;

use dlock_core::url::StoreUrl;
use dlock_core::{Backend, ConfigError};

use super::missing_features;
use crate::Verdict;

/// A scheme that the suite knows.
pub(super) struct Scheme {
    name: &'static str,
    pub(super) port: u16,
    /// Whether a proxy can stand between: the server's certificate names its own host.
    pub(super) plain: bool,
}

const SCHEMES: &[Scheme] = &[
    #[cfg(feature = "redis")]
    scheme("redis", 6379, true),
    #[cfg(feature = "redis")]
    scheme("valkey", 6379, true),
    #[cfg(feature = "redis")]
    scheme("rediss", 6379, false),
    #[cfg(feature = "redis")]
    scheme("valkeys", 6379, false),
    #[cfg(feature = "etcd")]
    scheme("etcd", 2379, true),
    #[cfg(feature = "etcd")]
    scheme("etcds", 2379, false),
    #[cfg(feature = "jetstream")]
    scheme("nats", 4222, true),
    #[cfg(feature = "jetstream")]
    scheme("tls", 4222, false),
];

const fn scheme(name: &'static str, port: u16, plain: bool) -> Scheme {
    Scheme { name, port, plain }
}

/// The URL's scheme.
pub(super) fn scheme_of(url: &StoreUrl) -> Result<&'static Scheme, ConfigError> {
    let known = SCHEMES.iter().find(|known| known.name == url.scheme());
    known.ok_or_else(|| {
        let names: Vec<&str> = SCHEMES.iter().map(|known| known.name).collect();
        ConfigError::new(
            format!("store URL: scheme {}", url.scheme()),
            "nothing is compiled in that could open it",
            format!("it is one of {}{}", names.join(", "), missing_features()),
        )
    })
}

/// Reads a URL that may hold more than the suite needs, without connecting.
pub(super) fn check(url: &str) -> Result<StoreUrl, ConfigError> {
    let parsed = StoreUrl::parse(url)?;
    scheme_of(&parsed)?;
    let mut rest = parsed.clone();
    match parsed.scheme() {
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => drop(dlock_etcd::EtcdOptions::from_url(&mut rest)?),
        #[cfg(feature = "jetstream")]
        "nats" | "tls" => drop(dlock_jetstream::JetStreamOptions::from_url(&mut rest)?),
        #[cfg(feature = "redis")]
        _ => drop(dlock_redis::RedisOptions::from_url(&mut rest)?),
        #[cfg(not(feature = "redis"))]
        _ => {}
    }
    rest.finish()?;
    Ok(parsed)
}

/// A backend that reaches the store at this URL.
///
/// # Errors
///
/// A [`Failure`](crate::Failure) when the URL cannot be, or the store cannot be reached.
pub async fn backend_at(url: &str) -> Verdict<Arc<dyn Backend>> {
    let mut url = check(url)?;
    Ok(match url.scheme() {
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => {
            let options = dlock_etcd::EtcdOptions::from_url(&mut url)?;
            Arc::new(dlock_etcd::Etcd::connect(options).await?)
        }
        #[cfg(feature = "jetstream")]
        "nats" | "tls" => {
            let options = dlock_jetstream::JetStreamOptions::from_url(&mut url)?;
            Arc::new(dlock_jetstream::JetStream::connect(options).await?)
        }
        #[cfg(feature = "redis")]
        _ => {
            let options = dlock_redis::RedisOptions::from_url(&mut url)?;
            Arc::new(dlock_redis::Redis::connect(options).await?)
        }
        #[cfg(not(feature = "redis"))]
        _ => return Err(crate::Failure::new("no backend is compiled in")),
    })
}
