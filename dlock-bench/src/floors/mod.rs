//! The least that a lock needs on each store: one atomic create and one delete by the owner, over the client
//! library that dlock uses, on a connection of its own.

pub(crate) mod etcd;
pub(crate) mod jetstream;
pub(crate) mod memory;
pub(crate) mod redis;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::contestants::{Held, Locker};
use crate::fault::{Fault, Verdict};

/// One attempt to take a lock.
#[async_trait]
pub(crate) trait TryLocker: Send + Sync + 'static {
    /// `None` when somebody else has it.
    async fn try_lock(&self, name: &str) -> Verdict<Option<Box<dyn Held>>>;

    async fn close(&self) {}
}

/// Tries, and does not wait: a floor is for whoever is alone.
pub(crate) struct Once<T>(pub(crate) T);

/// Tries again after a pause, as often as it takes: what most users of such a lock write.
pub(crate) struct Retry<T> {
    pub(crate) lock: T,
    pub(crate) pause: Duration,
}

impl<T: TryLocker> Retry<T> {
    pub(crate) fn every(pause: Duration, lock: T) -> Arc<dyn Locker> {
        Arc::new(Self { lock, pause })
    }
}

#[async_trait]
impl<T: TryLocker> Locker for Once<T> {
    async fn lock(&self, name: &str) -> Verdict<Box<dyn Held>> {
        let held = self.0.try_lock(name).await?;
        held.ok_or_else(|| Fault::new("the floor's own lock is held by somebody"))
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait]
impl<T: TryLocker> Locker for Retry<T> {
    async fn lock(&self, name: &str) -> Verdict<Box<dyn Held>> {
        loop {
            if let Some(held) = self.lock.try_lock(name).await? {
                return Ok(held);
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    async fn close(&self) {
        self.lock.close().await;
    }
}
