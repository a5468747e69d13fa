//! The stores that the suite can start by itself, and deployments at a URL.

mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod resp;

use std::sync::Arc;

use dlock_core::{Backend, ConfigError};

use crate::Verdict;
use crate::target::Target;

pub use memory::Memory;
#[cfg(feature = "redis")]
pub use redis::{Deployment, RedisServer};

/// The names of the stores that the suite starts by itself.
#[cfg(feature = "redis")]
pub const BACKENDS: &[&str] = &["memory", "redis", "redis-7", "valkey"];
/// The names of the stores that the suite starts by itself.
#[cfg(not(feature = "redis"))]
pub const BACKENDS: &[&str] = &["memory"];

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
        other => Err(ConfigError::new(
            "backend",
            format!("there is no {other:?}"),
            format!("it is one of {}", BACKENDS.join(", ")),
        )),
    }
}

/// The deployment at this URL. Nothing of it is broken: cases that would have to are ignored.
///
/// # Errors
///
/// [`ConfigError`] when the URL cannot be, or no backend that is compiled in knows its scheme.
pub fn at_url(url: &str) -> Result<Arc<dyn Target>, ConfigError> {
    #[cfg(feature = "redis")]
    return Ok(Arc::new(Deployment::new(url)?));
    #[cfg(not(feature = "redis"))]
    Err(ConfigError::new(
        "store URL",
        // It may hold a password: none of it is repeated.
        format!(
            "of {} bytes: nothing is compiled in that could open it",
            url.len()
        ),
        "build with the feature of its store, such as redis",
    ))
}

/// A backend that reaches the store at this URL, for a [worker](crate::worker).
///
/// # Errors
///
/// A [`Failure`](crate::Failure) when it cannot be reached.
pub async fn backend_at(url: &str) -> Verdict<Arc<dyn Backend>> {
    #[cfg(feature = "redis")]
    return redis::connect(url).await;
    #[cfg(not(feature = "redis"))]
    Err(crate::Failure::new(format!(
        "nothing is compiled in that could open the store URL of {} bytes",
        url.len()
    )))
}
