//! One client's way to the in-memory store, and what can go wrong on it.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::session::MemorySession;
use super::store::MemoryStore;
use crate::sync::{Mutex, MutexGuard};
use crate::{
    Backend, Capabilities, LockName, LockSnapshot, Mailbox, Mode, Opened, Reach, SessionTerms,
    StoreError, Ttl,
};

/// One client's way to a [`MemoryStore`], as a backend. Clones share the way and its faults.
#[derive(Clone, Debug)]
pub struct MemoryLink {
    pub(super) store: MemoryStore,
    pub(super) path: Arc<Path>,
}

/// What is wrong with a [`MemoryLink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Every operation fails at once and does nothing, as when a connection is refused.
    Unreachable,
    /// Every operation and every push vanishes, and nothing is answered, as when a cable is cut.
    Silent,
    /// Operations are executed, but neither their answers nor pushes arrive.
    LostReplies,
    /// Operations arrive this much later, and their answers as much again.
    Slow(Duration),
    /// Operations are kept back until [`MemoryLink::deliver_held`], whatever is set meanwhile.
    Held,
    /// Pushes do not arrive (WAKE).
    LostPushes,
}

#[derive(Default)]
pub(super) struct Path {
    state: Mutex<PathState>,
}

#[derive(Default)]
struct PathState {
    fault: Option<Fault>,
    held: Vec<Box<dyn FnOnce() + Send>>,
}

impl MemoryLink {
    pub(super) fn new(store: MemoryStore) -> Self {
        Self {
            store,
            path: Arc::default(),
        }
    }

    /// From now on this is wrong, and nothing else.
    pub fn set(&self, fault: Fault) {
        self.path.state().fault = Some(fault);
    }

    /// From now on nothing is wrong. What is [held](Fault::Held) stays so.
    pub fn clear(&self) {
        self.path.state().fault = None;
    }

    /// Executes what was [held](Fault::Held) back, in the order in which it was sent.
    pub fn deliver_held(&self) {
        let held = std::mem::take(&mut self.path.state().held);
        for operation in held {
            operation();
        }
    }

    /// Ends every session that was opened over this link, as an operator of the store might.
    pub fn expire_sessions(&self) {
        self.store.with(|state, _| {
            for session in state.sessions_of(&self.path) {
                let stamp = self.store.stamp(state);
                state.end(session, stamp);
            }
        });
    }

    /// Sends an operation over this way, and waits for its answer.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&MemoryStore) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let fault = self.path.state().fault;
        match fault {
            None | Some(Fault::LostPushes) => Ok(operation(&self.store)),
            Some(Fault::Unreachable) => Err(StoreError::unavailable(
                "the in-memory store is out of reach (a test's fault)",
            )),
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::LostReplies) => {
                operation(&self.store);
                std::future::pending().await
            }
            // In these two the client may give the operation up; it arrives all the same (ONCE).
            Some(Fault::Slow(delay)) => {
                let (sender, answer) = oneshot::channel();
                let store = self.store.clone();
                tokio::spawn(async move {
                    let clock = store.clock();
                    clock.sleep_until(clock.now() + delay).await;
                    let result = operation(&store);
                    clock.sleep_until(clock.now() + delay).await;
                    let _ = sender.send(result);
                });
                answer.await.map_err(|_| lost())
            }
            Some(Fault::Held) => {
                let (sender, answer) = oneshot::channel();
                let store = self.store.clone();
                let execute = move || {
                    let _ = sender.send(operation(&store));
                };
                self.path.state().held.push(Box::new(execute));
                answer.await.map_err(|_| lost())
            }
        }
    }
}

fn lost() -> StoreError {
    StoreError::ambiguous("the operation was lost")
}

impl Path {
    pub(super) fn carries_pushes(&self) -> bool {
        !matches!(
            self.state().fault,
            Some(Fault::LostPushes | Fault::Silent | Fault::LostReplies | Fault::Unreachable)
        )
    }

    fn state(&self) -> MutexGuard<'_, PathState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Path")
            .field("fault", &state.fault)
            .field("held", &state.held.len())
            .finish()
    }
}

#[async_trait]
impl Backend for MemoryLink {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            modes: &Mode::ALL,
            min_ttl: Ttl::MIN,
            slack: Duration::from_millis(100),
            reach: Reach::Process,
            durability: "none: the memory of one process".to_owned(),
        }
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let (path, terms) = (self.path.clone(), terms.clone());
        let (id, ttl) = (terms.id, terms.ttl);
        self.call(move |store| store.with(|state, now| state.open(&terms, mailbox, path, now)))
            .await?;
        Ok(Opened {
            session: Arc::new(MemorySession::new(self.clone(), id)),
            ttl,
        })
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        let name = name.clone();
        self.call(move |store| store.with(|state, _| state.inspect(&name)))
            .await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        self.call(|store| store.with(|state, _| state.names()))
            .await
    }
}
