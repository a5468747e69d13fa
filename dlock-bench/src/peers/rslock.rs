//! rslock: Redlock for Rust, here with one server and its own settings: it tries again after a random time of
//! up to 200 ms.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rslock::{LockGuard, LockManager};

use crate::contestants::{Held, Locker, TTL};
use crate::fault::Verdict;
use crate::floors::redis::client;
use crate::store::Place;

/// The longest time until it tries again.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

struct Rslock(LockManager);

struct Guard(LockGuard);

pub(super) async fn connect(place: Place) -> super::Client {
    Ok(Arc::new(Rslock(LockManager::from_clients(vec![client(
        &place,
    )?]))))
}

#[async_trait]
impl Locker for Rslock {
    async fn lock(&self, name: &str) -> Verdict<Box<dyn Held>> {
        Ok(Box::new(Guard(self.0.acquire(name, TTL).await?)))
    }
}

#[async_trait]
impl Held for Guard {
    async fn release(self: Box<Self>) -> Verdict {
        self.0.release().await;
        Ok(())
    }
}
