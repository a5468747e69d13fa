//! How much is measured.

use std::time::Duration;

use crate::crowd::Window;
use crate::store::Store;

/// Sizes and times, for a real run or for a quick one.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Acquisitions of a free lock by each contestant, in one round.
    pub(crate) free: usize,
    pub(crate) contenders: &'static [usize],
    pub(crate) processes: &'static [usize],
    pub(crate) waiters: &'static [usize],
    pub(crate) names: &'static [usize],
    /// Locks of one client.
    pub(crate) locks: usize,
    pub(crate) window: Window,
    /// How long two clients hand a lock to each other, warm.
    pub(crate) warm: Duration,
    /// The same, with pauses.
    pub(crate) idling: Duration,
}

impl Plan {
    /// The whole of it.
    pub(crate) const fn full() -> Self {
        Self {
            free: 2_000,
            contenders: &[2, 8, 64, 256, 1_000],
            processes: &[2, 8, 32],
            waiters: &[10, 100, 1_000],
            names: &[1, 10, 100, 1_000],
            locks: 10_000,
            window: Window {
                least: Duration::from_secs(1),
                most: Duration::from_secs(8),
                turns: 10,
            },
            warm: Duration::from_secs(3),
            idling: Duration::from_secs(6),
        }
    }

    /// Enough to see that everything works.
    pub(crate) const fn quick() -> Self {
        Self {
            free: 200,
            contenders: &[2, 8],
            processes: &[2],
            waiters: &[10, 50],
            names: &[1, 10, 100],
            locks: 500,
            window: Window {
                least: Duration::from_millis(150),
                most: Duration::from_millis(600),
                turns: 10,
            },
            warm: Duration::from_millis(300),
            idling: Duration::from_millis(600),
        }
    }

    /// For how long a holder keeps the lock, so that the next one is surely in the queue.
    pub(crate) const fn hold(store: Store) -> Duration {
        match store {
            // Taking a place takes several commits to the disk there.
            Store::Etcd => Duration::from_millis(15),
            _ => Duration::from_millis(4),
        }
    }
}
