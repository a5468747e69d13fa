//! What a look at a lock shows.

use std::time::SystemTime;

use crate::{ClaimId, FencingToken, LockName, Mode, Owner};

/// One lock at one moment: who holds it, and who waits, in the order of their arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockSnapshot {
    /// The lock.
    pub name: LockName,
    /// The granted claims, in the order of arrival.
    pub holders: Vec<ClaimSnapshot>,
    /// The waiting claims, first come first.
    pub waiters: Vec<ClaimSnapshot>,
}

impl LockSnapshot {
    /// A lock that nobody holds or waits for.
    #[must_use]
    pub fn free(name: LockName) -> Self {
        Self {
            name,
            holders: Vec::new(),
            waiters: Vec::new(),
        }
    }

    /// Whether nobody holds it or waits for it.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}

/// One claim in a [`LockSnapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSnapshot {
    /// The claim.
    pub id: ClaimId,
    /// The mode that it holds or waits for.
    pub mode: Mode,
    /// Who made it.
    pub owner: Owner,
    /// Since when it is held or waits, by the store's clock where it has one.
    pub since: SystemTime,
    /// The token of a granted claim.
    pub token: Option<FencingToken>,
    /// Whether the client that asks keeps it, and none of its tasks uses it
    /// ([`ClientOptions::keep`](crate::ClientOptions::keep)). What other clients keep, only they know: a
    /// backend says `false`.
    pub kept: bool,
}
