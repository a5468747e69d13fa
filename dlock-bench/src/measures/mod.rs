//! What is measured: a file each. A measure runs once a round, and lets all contestants run at each point
//! before it goes on to the next one, so that what disturbs the machine disturbs all of them.

mod contended;
mod drain;
mod free;
mod hand_off;
mod kept;
mod local;
mod many_locks;
mod many_names;

use std::fmt;

use clap::ValueEnum;

use crate::bench::Bench;

/// A measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// Taking and releasing a free lock.
    Free,
    /// Contenders for one lock: rates, fairness, and what it costs the store and the clients.
    Contended,
    /// From the release to the next holder, between two.
    HandOff,
    /// A queue of many waiters, until the last one was granted.
    Drain,
    /// Many locks held by one client.
    ManyLocks,
    /// Many locks used at the same time.
    ManyNames,
    /// Tasks of one process on one lock, beside Tokio's mutex.
    Local,
    /// A kept claim taken again, beside Tokio's mutex.
    Kept,
}

impl Measure {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Free => "free lock",
            Self::Contended => "contended",
            Self::HandOff => "hand-off",
            Self::Drain => "drain",
            Self::ManyLocks => "many locks",
            Self::ManyNames => "many names",
            Self::Local => "tasks of one process",
            Self::Kept => "kept claim",
        }
    }

    /// One round of it.
    pub(crate) async fn run(self, bench: &mut Bench) {
        match self {
            Self::Free => free::run(bench).await,
            Self::Contended => contended::run(bench).await,
            Self::HandOff => hand_off::run(bench).await,
            Self::Drain => drain::run(bench).await,
            Self::ManyLocks => many_locks::run(bench).await,
            Self::ManyNames => many_names::run(bench).await,
            Self::Local => local::run(bench).await,
            Self::Kept => kept::run(bench).await,
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The quantities, by the names that they have in the results.
pub(crate) mod metric {
    use crate::sheet::Metric;

    pub(crate) const PAIR_P50: Metric = Metric::new("acquire and release, p50", "µs");
    pub(crate) const PAIR_P99: Metric = Metric::new("acquire and release, p99", "µs");
    pub(crate) const PAIRS: Metric = Metric::new("acquired and released", "/s");
    pub(crate) const CHANGES: Metric = Metric::new("grants that change owner", "/s");
    pub(crate) const GRANTS: Metric = Metric::new("all grants", "/s");
    pub(crate) const JAIN: Metric = Metric::new("evenness of turns (Jain)", "");
    pub(crate) const REQUESTS: Metric = Metric::new("store requests per acquisition", "");
    pub(crate) const COMMITS: Metric = Metric::new("store commits per acquisition", "");
    pub(crate) const PUSHES: Metric = Metric::new("wake-ups per acquisition", "");
    pub(crate) const BYTES: Metric = Metric::new("bytes per acquisition", "B");
    pub(crate) const CPU: Metric = Metric::new("client CPU per acquisition", "µs");
    pub(crate) const HAND_OFF_P50: Metric = Metric::new("hand-off, p50", "µs");
    pub(crate) const HAND_OFF_P99: Metric = Metric::new("hand-off, p99", "µs");
    pub(crate) const DRAINED: Metric = Metric::new("time until all were granted", "ms");
    pub(crate) const INVERSIONS: Metric = Metric::new("pairs out of order", "");
    pub(crate) const HEARTBEATS: Metric = Metric::new("store requests in a TTL", "");
    pub(crate) const MEMORY: Metric = Metric::new("client memory per lock", "B");
    pub(crate) const HAND_OVER: Metric = Metric::new("time per hand-over", "ns");
    pub(crate) const TAKEN: Metric = Metric::new("time per acquire and release", "ns");
    pub(crate) const STORE_OPERATIONS: Metric = Metric::new("store requests in the whole run", "");
}
