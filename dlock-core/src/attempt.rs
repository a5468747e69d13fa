//! One attempt to have something done by a store: how long it may take, and giving it up.

use std::time::Duration;

use crate::{Clock, StoreError};

/// [`SessionTerms::attempt_limit`](crate::SessionTerms::attempt_limit), for the TTL that the store
/// granted.
pub(crate) fn limit(ttl: Duration) -> Duration {
    (ttl / 4).min(Duration::from_secs(5))
}

/// The attempt's result, or that there was no answer in time. It is given up by being dropped: its
/// effect is unknown then (ONCE).
pub(crate) async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    attempt: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::select! {
        biased;
        result = attempt => result,
        () = clock.sleep_until(clock.now() + limit) => {
            Err(StoreError::ambiguous(format!("no answer within {limit:?}")))
        }
    }
}
