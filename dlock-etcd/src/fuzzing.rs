//! What the fuzz targets look at. No part of the interface.

use dlock_core::{Claim, ClaimId, LockName, Mode, Namespace};

use crate::keys::Layout;

/// A claim's key.
#[must_use]
pub fn key(namespace: &Namespace, claim: &Claim) -> String {
    Layout::new(namespace.clone()).claim(claim)
}

/// What the keys of a lock's claims begin with.
#[must_use]
pub fn range(namespace: &Namespace, name: &LockName) -> String {
    Layout::new(namespace.clone()).lock(name)
}

/// The claim that has this key.
#[must_use]
pub fn read(namespace: &Namespace, key: &[u8]) -> Option<(LockName, Mode, ClaimId)> {
    Layout::new(namespace.clone()).read(key)
}
