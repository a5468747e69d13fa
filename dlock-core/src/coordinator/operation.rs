//! What the store is asked for one lock, and when.

use std::sync::Arc;
use std::time::Duration;

use crate::{Attempts, Claim, Moment, Wait};

/// A claim's number in its session: the key by which coordinator and session speak of it.
pub(crate) type Number = u64;

/// What the store is to be asked next.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Request(Arc<Claim>, Wait),
    Look(Arc<Claim>),
    Listen(Arc<Claim>),
    Withdraw(Arc<Claim>, Attempts),
    /// The first claim leaves, and the second asks: a withdraw and a request in one.
    Replace(Arc<Claim>, Arc<Claim>),
}

impl Operation {
    pub(crate) fn claim(&self) -> &Arc<Claim> {
        match self {
            Operation::Request(claim, _)
            | Operation::Look(claim)
            | Operation::Listen(claim)
            | Operation::Withdraw(claim, _)
            | Operation::Replace(_, claim) => claim,
        }
    }
}

/// What is to be done for the name.
#[derive(Debug)]
pub(crate) enum Next {
    /// Perform this now, and report to [`Gate::answered`].
    Perform(Operation),
    /// Nothing before this moment.
    At(Moment),
    /// Nothing until somebody asks, or the operation on its way is answered.
    Nothing,
}

/// How long to wait before a failed operation is tried again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// Doubles with each failure up to the longest, less a random part of at most a half, so that
    /// clients that failed together do not come back together.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled
            .min(self.longest)
            .mul_f64(1.0 - fastrand::f64() / 2.0)
    }
}
