//! What a path's condition means for what travels on it: shared by the TCP proxy and the wire inside
//! the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::target::Condition;

/// A path's condition, and how often what it held was delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) condition: Condition,
    pub(crate) deliveries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToStore,
    FromStore,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            condition: Condition::Clear,
            deliveries: 0,
        }
    }
}

impl Weather {
    /// Whether what travels in this direction is lost.
    pub(crate) fn loses(self, direction: Direction) -> bool {
        match self.condition {
            Condition::Refused | Condition::Cut => true,
            Condition::CutToStore => direction == Direction::ToStore,
            Condition::CutFromStore => direction == Direction::FromStore,
            Condition::Clear | Condition::Held | Condition::Slow { .. } => false,
        }
    }

    /// Whether what travels in this direction is kept back.
    pub(crate) fn holds(self, direction: Direction) -> bool {
        self.condition == Condition::Held && direction == Direction::ToStore
    }

    /// How much later what is sent now arrives.
    pub(crate) fn delay(self, direction: Direction) -> Duration {
        match (self.condition, direction) {
            (Condition::Slow { to_store, .. }, Direction::ToStore) => to_store,
            (Condition::Slow { from_store, .. }, Direction::FromStore) => from_store,
            _ => Duration::ZERO,
        }
    }
}

/// Counts as one until it is dropped.
pub(crate) struct Kept(Arc<AtomicUsize>);

impl Kept {
    pub(crate) fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
