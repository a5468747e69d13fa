//! The coordinators of one session, by lock name.
//!
//! One short critical section, never held across an await.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::coordinator::{Backoff, Coordinator, Number};
use crate::sync::{Mutex, MutexGuard};
use crate::{Claim, LockName, LossReason};

#[derive(Debug)]
pub(super) struct Registry {
    backoff: Backoff,
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
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            names: Mutex::new(Some(Names::default())),
        }
    }

    /// Lets the name's coordinator do something; `None` when the session is over.
    pub(super) fn with<T>(
        &self,
        name: &LockName,
        act: impl FnOnce(&mut Coordinator) -> T,
    ) -> Option<T> {
        let mut names = self.names();
        let Names {
            coordinators,
            of_claim,
        } = names.as_mut()?;
        if !coordinators.contains_key(name) {
            coordinators.insert(name.clone(), Coordinator::new(self.backoff));
        }
        let coordinator = coordinators.get_mut(name)?;
        let result = act(coordinator);
        for number in coordinator.take_gone() {
            of_claim.remove(&number);
        }
        if coordinator.is_idle() {
            coordinators.remove(name);
        }
        Some(result)
    }

    /// Like [`with`](Registry::with), to add the claim of this number.
    pub(super) fn add(
        &self,
        name: &LockName,
        number: Number,
        act: impl FnOnce(&mut Coordinator),
    ) -> Option<()> {
        self.names().as_mut()?.of_claim.insert(number, name.clone());
        self.with(name, act)
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
