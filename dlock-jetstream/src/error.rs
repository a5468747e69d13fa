//! What an error of the server or of the connection means for a claim.
//!
//! What may be concluded decides what the core does next, so each code of the server is mapped
//! deliberately. An answer of the server that is an error says that nothing was done. No answer says
//! nothing at all (ONCE).

use async_nats::RequestErrorKind;
use async_nats::client::RequestError;
use dlock_core::StoreError;
use serde::Deserialize;

/// An error as the server's JetStream answers it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ApiError {
    /// Like a status of HTTP.
    pub(crate) code: u64,
    /// JetStream's own number for it.
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

impl ApiError {
    /// The stream has a newer message on the subject than was expected.
    pub(crate) const OVERTAKEN: u64 = 10_071;
    /// Another write to the subject is under way. It may fail yet.
    pub(crate) const IN_FLIGHT: u64 = 10_164;
    pub(crate) const NO_STREAM: u64 = 10_059;
    pub(crate) const NO_MESSAGE: u64 = 10_037;
    /// A stream of this name exists, with other settings.
    pub(crate) const NAME_IN_USE: u64 = 10_058;
}

/// The meaning of an error that the server answered.
pub(crate) fn answered(error: &ApiError) -> StoreError {
    let text = format!("{} (code {})", error.description, error.err_code);
    let refused = |remedy: &str| StoreError::refused(format!("{remedy}: {text}"));
    match error.err_code {
        10_076 | 10_039 => refused(NO_JETSTREAM),
        10_054 => refused("the lock has too many claims for one message of the bucket"),
        10_023 | 10_028 | 10_047 | 10_077 => refused(
            "the server has no room left for the bucket; raise the limit or free some of it",
        ),
        10_166 => refused("the bucket does not allow TTLs of single messages; connect again"),
        10_074 => refused("one server alone cannot keep so many replicas"),
        // While a cluster starts, too.
        10_005 => StoreError::unavailable(format!(
            "the cluster has too few servers for so many replicas, or they are not there yet: {text}"
        )),
        ApiError::NO_STREAM => StoreError::unavailable(format!("the bucket is gone: {text}")),
        _ if error.code == 503 => {
            StoreError::unavailable(format!("JetStream is not available for the moment: {text}"))
        }
        _ => refused("JetStream refused"),
    }
}

pub(crate) const NO_JETSTREAM: &str =
    "JetStream is not enabled; start the server with -js, or enable it for this account";

/// The meaning of a request that got no answer.
pub(crate) fn unanswered(error: &RequestError) -> StoreError {
    match error.kind() {
        RequestErrorKind::NoResponders => StoreError::unavailable(
            "nobody answers for the bucket: it has no leader for the moment, or is gone, or JetStream is \
             not enabled for this account",
        ),
        RequestErrorKind::MaxPayloadExceeded => too_large(),
        RequestErrorKind::InvalidSubject => StoreError::refused(error.to_string()),
        RequestErrorKind::TimedOut | RequestErrorKind::Other => {
            StoreError::ambiguous(format!("no answer: {error}"))
        }
    }
}

pub(crate) fn too_large() -> StoreError {
    StoreError::refused(
        "the lock has too many claims for one message; raise the server's max_payload",
    )
}

/// The meaning of a subject that the user may not use. The server says so beside the connection, in
/// its own words.
pub(crate) fn denied(words: &str) -> StoreError {
    StoreError::refused(format!(
        "the user lacks a permission: {words}; it needs to publish to $KV.dlock-<namespace>.>, \
         $JS.API.> and dlock.>, and to subscribe to _INBOX.> and dlock.>"
    ))
}

/// Something in the bucket that no version of this library writes.
pub(crate) fn strange(subject: &str, payload: &[u8]) -> StoreError {
    let shown: String = String::from_utf8_lossy(payload).chars().take(80).collect();
    StoreError::refused(format!(
        "{subject} holds something that dlock did not write: {shown:?}; choose another namespace"
    ))
}

#[cfg(test)]
mod tests {
    use dlock_core::StoreErrorKind;

    use super::*;

    #[test]
    fn what_passes_by_itself_is_unavailable_and_what_does_not_is_refused() {
        use StoreErrorKind::{Refused, Unavailable};
        for (code, err_code, kind, words) in [
            (503, 10_008, Unavailable, "for the moment"),
            (503, 10_118, Unavailable, "for the moment"),
            (400, 10_005, Unavailable, "too few servers"),
            (500, 10_074, Refused, "replicas"),
            (404, 10_059, Unavailable, "the bucket is gone"),
            (503, 10_076, Refused, "-js"),
            (503, 10_039, Refused, "-js"),
            (503, 10_077, Refused, "no room"),
            (400, 10_054, Refused, "too many claims"),
            (400, 10_166, Refused, "TTLs"),
            (400, 1, Refused, "refused"),
        ] {
            let error = answered(&ApiError {
                code,
                err_code,
                description: "its words".into(),
            });
            assert_eq!(error.kind(), kind, "{err_code}");
            let text = error.to_string();
            assert!(text.contains(words) && text.contains("its words"), "{text}");
        }
    }
}
