//! The coordinators of one session, by lock name.
//!
//! One short critical section, never held across an await.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::coordinator::{Backoff, Coordinator, Number, Rules};
use crate::sync::{AtomicU64, Mutex, MutexGuard};
use crate::{Claim, LockName, LossReason};

#[derive(Debug)]
pub(super) struct Registry {
    backoff: Backoff,
    rules: Rules,
    /// The last number that a claim or a request of the session has.
    numbers: Arc<AtomicU64>,
    /// `None` once the session is over.
    names: Mutex<Option<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    coordinators: HashMap<LockName, Coordinator>,
    /// Which lock a claim is for: pushes name the claim alone.
    of_claim: HashMap<Number, LockName>,
}

impl Registry {
    pub(super) fn new(backoff: Backoff, rules: Rules) -> Self {
        Self {
            backoff,
            rules,
            numbers: Arc::default(),
            names: Mutex::new(Some(Names::default())),
        }
    }

    /// A number that nothing of this session has yet.
    pub(super) fn next_number(&self) -> Number {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lets the name's coordinator do something; `None` when the session is over. `true` says that the
    /// session's task is to see to the name.
    pub(super) fn with<T>(
        &self,
        name: &LockName,
        act: impl FnOnce(&mut Coordinator) -> T,
    ) -> Option<(T, bool)> {
        let mut names = self.names();
        let Names {
            coordinators,
            of_claim,
        } = names.as_mut()?;
        // Mostly it is known: then the name need not be copied.
        let coordinator = match coordinators.get_mut(name) {
            Some(known) => known,
            None => coordinators.entry(name.clone()).or_insert_with(|| {
                Coordinator::new(self.backoff, self.rules, self.numbers.clone())
            }),
        };
        let result = act(coordinator);
        for number in coordinator.take_placed() {
            of_claim.insert(number, name.clone());
        }
        for number in coordinator.take_gone() {
            of_claim.remove(&number);
        }
        let stirred = coordinator.take_stirred();
        if coordinator.is_idle() {
            coordinators.remove(name);
        }
        Some((result, stirred))
    }

    /// The lock that a claim is for.
    pub(super) fn name_of(&self, number: Number) -> Option<LockName> {
        self.names().as_ref()?.of_claim.get(&number).cloned()
    }

    /// Whether no withdraw is under way.
    pub(super) fn is_drained(&self) -> bool {
        let names = self.names();
        names
            .iter()
            .flat_map(|names| names.coordinators.values())
            .all(Coordinator::is_drained)
    }

    /// The claims that are granted and not on their way out.
    pub(super) fn held(&self) -> Vec<Arc<Claim>> {
        let names = self.names();
        let coordinators = names.iter().flat_map(|names| names.coordinators.values());
        coordinators.flat_map(Coordinator::held).cloned().collect()
    }

    /// The session is over: all coordinators tell their callers, and nothing is asked any more.
    pub(super) fn close(&self, reason: LossReason) {
        let names = self.names().take();
        for (_, coordinator) in names.into_iter().flat_map(|names| names.coordinators) {
            coordinator.lost(reason);
        }
    }

    fn names(&self) -> MutexGuard<'_, Option<Names>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
