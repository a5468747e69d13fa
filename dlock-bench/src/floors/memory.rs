//! In this process: Tokio's mutex, one for each name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;

use crate::contestants::{Contestant, FLOOR, Held, Locker, Role};
use crate::fault::Verdict;

pub(crate) const CONTESTANT: Contestant = Contestant::new(FLOOR, Role::Floor, |_| {
    Box::pin(async { Ok(Arc::new(Mutexes) as _) })
});

type Names = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// All clients of this process share them.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

struct Mutexes;

#[async_trait]
impl Locker for Mutexes {
    async fn lock(&self, name: &str) -> Verdict<Box<dyn Held>> {
        let mutex = {
            let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
            match names.get(name) {
                Some(mutex) => Arc::clone(mutex),
                None => Arc::clone(names.entry(name.to_owned()).or_default()),
            }
        };
        Ok(Box::new(mutex.lock_owned().await))
    }
}

#[async_trait]
impl Held for tokio::sync::OwnedMutexGuard<()> {
    async fn release(self: Box<Self>) -> Verdict {
        Ok(())
    }
}
