//! A backend whose pushes never arrive (WAKE).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dlock_core::{
    Backend, Capabilities, LockName, LockSnapshot, Mailbox, Opened, Push, SessionTerms, StoreError,
    async_trait,
};

use super::overhear;

/// Drops every push but the news that the session is over.
#[derive(Clone, Debug)]
pub struct Deaf {
    inner: Arc<dyn Backend>,
    deaf: Arc<AtomicBool>,
}

impl Deaf {
    /// This backend, without its pushes.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self::while_set(inner, Arc::new(AtomicBool::new(true)))
    }

    /// This backend, without its pushes while `deaf` is true.
    #[must_use]
    pub fn while_set(inner: Arc<dyn Backend>, deaf: Arc<AtomicBool>) -> Self {
        Self { inner, deaf }
    }
}

#[async_trait]
impl Backend for Deaf {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        self.inner.inspect(name).await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        self.inner.names().await
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let deaf = Arc::clone(&self.deaf);
        let filter = overhear(move |push| {
            if matches!(push, Push::Lost(_)) || !deaf.load(Ordering::Relaxed) {
                mailbox.push(push);
            }
        });
        self.inner.open(terms, filter).await
    }
}
