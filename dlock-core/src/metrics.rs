//! Counters and histograms through the `metrics` facade, with the feature `metrics`; without it these
//! functions do nothing. The table is in the documentation of [`Client`](crate::Client).
//!
//! No metric is labelled by lock name: names are the user's data, and without bound.

#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

use std::time::Duration;

use crate::{LossReason, Mode};

/// How an acquire ended.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
pub(crate) enum Acquired {
    Granted,
    Taken,
    Timeout,
    Failed,
}

/// `took` reads a clock: it is asked only where somebody counts.
pub(crate) fn acquired(
    backend: &'static str,
    mode: Mode,
    outcome: Acquired,
    took: impl FnOnce() -> Duration,
) {
    #[cfg(feature = "metrics")]
    {
        let outcome = match outcome {
            Acquired::Granted => "granted",
            Acquired::Taken => "taken",
            Acquired::Timeout => "timeout",
            Acquired::Failed => "failed",
        };
        let labels = [
            ("backend", backend),
            ("mode", mode.code()),
            ("outcome", outcome),
        ];
        ::metrics::counter!("dlock_acquires_total", &labels).increment(1);
        ::metrics::histogram!("dlock_acquire_seconds", &labels).record(took());
    }
}

/// `time` reads a clock: it is asked only where somebody counts.
pub(crate) fn held(backend: &'static str, mode: Mode, time: impl FnOnce() -> Duration) {
    #[cfg(feature = "metrics")]
    ::metrics::histogram!("dlock_held_seconds", "backend" => backend, "mode" => mode.code())
        .record(time());
}

pub(crate) fn renewed(backend: &'static str, ok: bool) {
    #[cfg(feature = "metrics")]
    {
        let outcome = if ok { "ok" } else { "failed" };
        ::metrics::counter!("dlock_renewals_total", "backend" => backend, "outcome" => outcome)
            .increment(1);
    }
}

pub(crate) fn session_lost(backend: &'static str, reason: LossReason) {
    #[cfg(feature = "metrics")]
    {
        let reason = match reason {
            LossReason::Expired => "expired",
            LossReason::StoreUnreachable => "unreachable",
            LossReason::Revoked => "revoked",
            LossReason::Closed => "closed",
        };
        ::metrics::counter!("dlock_sessions_lost_total", "backend" => backend, "reason" => reason)
            .increment(1);
    }
}
