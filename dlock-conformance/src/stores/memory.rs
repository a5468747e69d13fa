//! The in-memory store as a target.

use std::sync::Arc;

use dlock_core::async_trait;
use dlock_core::memory::MemoryStore;

use crate::Verdict;
use crate::target::{Counts, Link, Meter, Need, Prices, Target};

/// One in-memory store. Its network is a [`Wire`](crate::wrap::Wire).
#[derive(Clone, Debug, Default)]
pub struct Memory {
    store: MemoryStore,
}

#[async_trait]
impl Target for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn link(&self) -> Verdict<Link> {
        Ok(Link::new(self.store.link()))
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Wipe | Need::Meter => None,
            Need::Processes => Some("other processes cannot reach this process's memory".into()),
            Need::Steps => Some("it does not count the steps of an operation".into()),
            Need::Unconfirmable => Some("it has one durability only".into()),
            Need::Rollback => Some("what it loses, it loses with all the rest".into()),
            Need::Servers | Need::Nodes => Some("it is no server".into()),
        }
    }

    async fn wipe(&self) -> Verdict {
        self.store.wipe();
        Ok(())
    }

    fn meter(&self) -> Verdict<Arc<dyn Meter>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Meter for Memory {
    async fn read(&self) -> Verdict<Counts> {
        let done = self.store.operations();
        let claims = done.requests + done.withdraws - done.replacements;
        let sessions = done.opens + done.renewals + done.closes;
        Ok(Counts {
            requests: claims + done.looks + sessions,
            pushes: done.pushes,
            changes: None,
            steps: None,
        })
    }

    fn prices(&self) -> Prices {
        Prices {
            acquire: 1,
            first_acquire: 1,
            enqueue: 1,
            take_over: 0,
            take_over_in_a_queue: 0,
            release: 1,
            anew: 1,
            refused_try: 1,
            heartbeat: 1,
        }
    }
}
