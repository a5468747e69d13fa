//! A backend that claims to do less than it can (HONEST).

use std::sync::Arc;
use std::time::Duration;

use dlock_core::{
    Backend, Capabilities, LockName, LockSnapshot, Mailbox, Mode, Opened, SessionTerms, StoreError,
    async_trait,
};

/// Grants only some modes, and only leases of a second or more.
#[derive(Clone, Debug)]
pub struct Limited {
    inner: Arc<dyn Backend>,
}

impl Limited {
    /// The modes that it says it grants.
    pub const MODES: &'static [Mode] = &[Mode::Exclusive];
    /// The shortest lease that it says it can do.
    pub const MIN_TTL: Duration = Duration::from_secs(1);

    /// This backend, with less to offer.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl Backend for Limited {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        self.inner.inspect(name).await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        self.inner.names().await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            modes: Self::MODES,
            min_ttl: Self::MIN_TTL.max(self.inner.capabilities().min_ttl),
            ..self.inner.capabilities()
        }
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        self.inner.open(terms, mailbox).await
    }
}
