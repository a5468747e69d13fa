//! What the fuzz targets look at. No part of the interface.

use dlock_core::{LockName, Namespace};

use crate::keys::Layout;

/// A lock's keys; the last one is its own.
#[must_use]
pub fn keys(namespace: &Namespace, partitions: u32, name: &LockName) -> Vec<String> {
    Layout::new(namespace.clone(), partitions).lock(name)
}
