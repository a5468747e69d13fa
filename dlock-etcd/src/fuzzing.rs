//! What the fuzz targets look at. No part of the interface.

use dlock_core::{Claim, ClaimId, LockName, Mode, Namespace};

use crate::keys::{Layout, Slot};

/// The key of a claim whose slot has the same number.
#[must_use]
pub fn key(namespace: &Namespace, claim: &Claim) -> String {
    let ClaimId { session, number } = claim.id;
    Layout::new(namespace.clone()).slot(&claim.name, claim.mode, Slot { session, number })
}

/// What the keys of a lock's claims begin with.
#[must_use]
pub fn range(namespace: &Namespace, name: &LockName) -> String {
    Layout::new(namespace.clone()).lock(name)
}

/// The lock and the mode of the claim that has this key, and its slot.
#[must_use]
pub fn read(namespace: &Namespace, key: &[u8]) -> Option<(LockName, Mode, ClaimId)> {
    let (name, mode, slot) = Layout::new(namespace.clone()).read(key)?;
    let Slot { session, number } = slot;
    Some((name, mode, ClaimId { session, number }))
}
