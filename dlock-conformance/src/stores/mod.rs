//! The stores that the suite can start by itself, and deployments at a URL.

#[cfg(any(feature = "etcd", feature = "jetstream"))]
mod cluster;
#[cfg(feature = "containers")]
mod container;
mod deployment;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(any(feature = "etcd", feature = "jetstream"))]
mod http;
#[cfg(feature = "jetstream")]
mod jetstream;
mod memory;
#[cfg(feature = "jetstream")]
mod nats_pushes;
#[cfg(any(feature = "etcd", feature = "jetstream"))]
mod network;
#[cfg(feature = "containers")]
mod one;
mod open;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod resp;

use std::sync::Arc;

use dlock_core::ConfigError;

use crate::target::Target;

#[cfg(any(feature = "etcd", feature = "jetstream"))]
pub use cluster::Cluster;
pub use deployment::Deployment;
#[cfg(feature = "etcd")]
pub use etcd::EtcdServer;
#[cfg(feature = "jetstream")]
pub use jetstream::JetStreamServer;
pub use memory::Memory;
pub use open::backend_at;
#[cfg(feature = "redis")]
pub use redis::RedisServer;

/// The names of the stores that the suite starts by itself.
pub const BACKENDS: &[&str] = &[
    "memory",
    #[cfg(feature = "redis")]
    "redis",
    #[cfg(feature = "redis")]
    "redis-7",
    #[cfg(feature = "redis")]
    "valkey",
    #[cfg(feature = "etcd")]
    "etcd",
    #[cfg(feature = "etcd")]
    "etcd-cluster",
    #[cfg(feature = "jetstream")]
    "jetstream",
    #[cfg(feature = "jetstream")]
    "jetstream-cluster",
];

/// The store of this name. Nothing is started before the first case needs it.
///
/// # Errors
///
/// [`ConfigError`] that lists the names when there is no such store.
pub fn named(name: &str) -> Result<Arc<dyn Target>, ConfigError> {
    match name {
        "memory" => Ok(Arc::new(Memory::default())),
        #[cfg(feature = "redis")]
        "redis" => Ok(Arc::new(RedisServer::redis("8.0"))),
        #[cfg(feature = "redis")]
        "redis-7" => Ok(Arc::new(RedisServer::redis("7.0"))),
        #[cfg(feature = "redis")]
        "valkey" => Ok(Arc::new(RedisServer::valkey())),
        #[cfg(feature = "etcd")]
        "etcd" => Ok(Arc::new(EtcdServer::default())),
        #[cfg(feature = "etcd")]
        "etcd-cluster" => Ok(Arc::new(etcd::cluster())),
        #[cfg(feature = "jetstream")]
        "jetstream" => Ok(Arc::new(JetStreamServer::default())),
        #[cfg(feature = "jetstream")]
        "jetstream-cluster" => Ok(Arc::new(jetstream::cluster())),
        other => Err(ConfigError::new(
            "backend",
            format!("there is no {other:?}"),
            format!("it is one of {}{}", BACKENDS.join(", "), missing_features()),
        )),
    }
}

/// The deployment at this URL. Nothing of it is broken: cases that would have to are ignored.
///
/// # Errors
///
/// [`ConfigError`] when the URL cannot be, or no backend that is compiled in knows its scheme.
pub fn at_url(url: &str) -> Result<Arc<dyn Target>, ConfigError> {
    Ok(Arc::new(Deployment::new(url)?))
}

/// What a user is told about the stores that are not compiled in.
fn missing_features() -> String {
    let features = [
        ("redis", cfg!(feature = "redis")),
        ("etcd", cfg!(feature = "etcd")),
        ("jetstream", cfg!(feature = "jetstream")),
    ];
    let missing = features.iter().filter(|(_, compiled)| !compiled);
    let missing: Vec<&str> = missing.map(|(feature, _)| *feature).collect();
    if missing.is_empty() {
        return String::new();
    }
    format!(
        "; others need a feature of dlock-conformance: {}",
        missing.join(", ")
    )
}
