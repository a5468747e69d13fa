//! How long a lease lasts without a renewal, and what follows from it.

use std::fmt;
use std::time::Duration;

use crate::ConfigError;

/// How long a session's lease lasts in the store without a renewal: 20 ms to 24 h, 10 s unless
/// another is chosen.
///
/// A crashed holder's lock is freed after this time (LIVE-A); a holder that cannot reach its store is
/// told a safety margin earlier (LIVE-B). A short TTL frees sooner; a long one rides out longer
/// outages and stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(Duration);

impl Ttl {
    /// The shortest that any store can do; [`Capabilities`](crate::Capabilities) has each one's own.
    pub const MIN: Duration = Duration::from_millis(20);
    /// The longest.
    pub const MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// Checks the time and keeps it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it is out of range.
    pub fn new(time: Duration) -> Result<Self, ConfigError> {
        if (Self::MIN..=Self::MAX).contains(&time) {
            return Ok(Self(time));
        }
        Err(ConfigError::new(
            "option ttl",
            format!("{time:?} is out of range"),
            "it is a time from 20ms to 24h",
        ))
    }

    /// The time itself.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
