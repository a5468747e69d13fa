//! What the fuzz targets look at. No part of the interface.

use dlock_core::table::LockTable;
use dlock_core::{LockName, Namespace, StoreError};

use crate::documents::{Document, written};
use crate::keys::Layout;
use crate::link::Stored;

/// A document with this payload, as a session reads it.
///
/// # Errors
///
/// When it is none.
pub fn read(subject: &str, payload: &[u8]) -> Result<LockTable, StoreError> {
    let stored = Stored {
        sequence: 1,
        at: 0,
        payload: payload.to_vec(),
        deleted: false,
    };
    Document::read(subject, Some(&stored)).map(|document| LockTable::clone(&document.table))
}

/// The payload of a document, as a session writes it.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(table: &LockTable) -> Result<Vec<u8>, StoreError> {
    written(table, 0).map(|(payload, _)| payload)
}

/// The bucket of a namespace.
#[must_use]
pub fn bucket(namespace: &Namespace) -> String {
    Layout::new(namespace).bucket().to_owned()
}

/// Where a lock lives.
#[must_use]
pub fn subject(namespace: &Namespace, name: &LockName) -> String {
    Layout::new(namespace).lock(name)
}

/// The lock that lives there.
#[must_use]
pub fn name_of(namespace: &Namespace, subject: &str) -> Option<LockName> {
    Layout::new(namespace).name_of(subject)
}
