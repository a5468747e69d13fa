//! How long a write takes here, and what follows from that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many times as long as a write takes somebody waits for another one's write.
const PATIENCE: u32 = 8;
const LEAST_PATIENCE: Duration = Duration::from_millis(2);
const MOST_PATIENCE: Duration = Duration::from_millis(50);

/// A moving average of how long writes took.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    micros: AtomicU64,
}

impl Pace {
    pub(crate) fn wrote(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let before = self.micros.load(Ordering::Relaxed);
        let now = match before {
            0 => took,
            before => (before / 8).saturating_mul(7).saturating_add(took / 8),
        };
        // Of two at the same time one is lost: it is an average.
        self.micros.store(now, Ordering::Relaxed);
    }

    /// How long a write takes.
    pub(crate) fn write(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// How long to wait for somebody who is about to write.
    pub(crate) fn patience(&self) -> Duration {
        self.write()
            .saturating_mul(PATIENCE)
            .clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_writes_take_within_bounds() {
        let pace = Pace::default();
        assert_eq!(pace.patience(), LEAST_PATIENCE);
        for _ in 0..100 {
            pace.wrote(Duration::from_millis(3));
        }
        let patience = pace.patience();
        assert!(
            patience > Duration::from_millis(22) && patience <= Duration::from_millis(24),
            "{patience:?}"
        );
        pace.wrote(Duration::MAX);
        assert_eq!(pace.patience(), MOST_PATIENCE);
    }
}
