//! What is kept with a claim, beyond what its key and its revision say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dlock_core::{Owner, StoreError};
use serde::{Deserialize, Serialize};

/// The value of a claim's key, and of a session's, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The claim's number among its session's: its key may have been another claim's before. None for a
    /// session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<u64>,
    /// Whose it is.
    pub(crate) owner: Owner,
    /// When it was made, by the clock of whoever made it: milliseconds since 1970. etcd has no clock
    /// that a client could read.
    pub(crate) since: u64,
    /// The base of its token, where the claim itself raised it: see [`base`](crate::base).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<u64>,
}

impl Record {
    pub(crate) fn new(claim: Option<u64>, owner: Owner, now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            claim,
            owner,
            since: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            base: None,
        }
    }

    pub(crate) fn with_base(self, base: u64) -> Self {
        Self {
            base: Some(base),
            ..self
        }
    }

    pub(crate) fn since(&self) -> SystemTime {
        let since = UNIX_EPOCH.checked_add(Duration::from_millis(self.since));
        since.unwrap_or(UNIX_EPOCH)
    }

    pub(crate) fn text(&self) -> Result<String, StoreError> {
        serde_json::to_string(self)
            .map_err(|fault| StoreError::refused("the owner cannot be written").because(fault))
    }

    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// Something that dlock never writes.
pub(crate) fn strange(key: &[u8]) -> StoreError {
    let shown: String = String::from_utf8_lossy(key).chars().take(80).collect();
    StoreError::refused(format!(
        "the key {shown:?} holds something that dlock did not write; choose another namespace"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back() {
        let owner = Owner::this_process().labelled("a \"label\"\n");
        let record = Record::new(Some(3), owner, UNIX_EPOCH + Duration::from_millis(7));
        for record in [record.clone(), record.with_base(5)] {
            let text = record.text().unwrap();
            assert_eq!(Record::read(text.as_bytes()), Some(record));
        }
        assert_eq!(Record::read(b"{}"), None);
    }
}
