//! Time: a clock that goes on counting while the machine sleeps, and one that a test moves by hand.

use std::fmt::Debug;
use std::ops::{Add, Sub};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::sync::Mutex;

/// A point on a [`Clock`]: the time since that clock's zero. Only the differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment this long after the clock's zero.
    #[must_use]
    pub const fn since_zero(time: Duration) -> Self {
        Self(time)
    }

    /// The time since the clock's zero in nanoseconds, where it has to be one number.
    pub(crate) fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long `earlier` was ago at this moment; zero if it is yet to come.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, time: Duration) -> Moment {
        Moment(self.0.saturating_add(time))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, time: Duration) -> Moment {
        Moment(self.0.saturating_sub(time))
    }
}

/// Where the library reads the time, and how it waits for it. Programs need not name it; tests pass
/// a [`ManualClock`].
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now. It must never go back, and it must go on while the machine is suspended:
    /// leases in the store do (LIVE-B).
    fn now(&self) -> Moment;

    /// The time of the calendar, for people and for the order of tokens.
    fn wall(&self) -> SystemTime;

    /// Returns once `at` has come.
    ///
    /// # Cancel safety
    ///
    /// Dropping it does nothing.
    async fn sleep_until(&self, at: Moment);
}

/// The machine's clock: `CLOCK_BOOTTIME` where the system has it (Linux, Android), else one that may
/// stand still while the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[cfg(unix)]
fn time_since_start() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    // Both count from the machine's start: never negative, nanoseconds below a second.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(unix))]
fn time_since_start() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// A runtime's timers count on a clock that may stand still while the machine is suspended, so one
/// long sleep would end late by the time of the suspend. This clock sleeps a part of the time that
/// is left, and looks again; below this time it sleeps the rest at once.
const UNDIVIDED: Duration = Duration::from_millis(100);

/// The time of the calendar, for a backend to stamp its records with. It may be wrong, and it may jump:
/// nothing that a lock needs may depend on it.
///
/// With the feature `mutants` a test can make it jump.
#[must_use]
pub fn wall_clock() -> SystemTime {
    #[cfg(feature = "mutants")]
    return crate::mutants::jumped(SystemTime::now());
    #[cfg(not(feature = "mutants"))]
    SystemTime::now()
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment(time_since_start())
    }

    fn wall(&self) -> SystemTime {
        wall_clock()
    }

    async fn sleep_until(&self, at: Moment) {
        loop {
            let left = at.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(UNDIVIDED.max(left / 4))).await;
        }
    }
}

/// A clock that stands still until a test moves it. Clones are the same clock.
///
/// With the in-memory store, a test of a lost lock takes no time:
/// see [`memory`](crate::memory).
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Manual>);

#[derive(Debug, Default)]
struct Manual {
    now: Mutex<Duration>,
    moved: Notify,
}

impl ManualClock {
    /// A clock at its zero. Its calendar begins in 2026.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock and wakes everybody whose time has come.
    pub fn advance(&self, time: Duration) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner) += time;
        self.0.moved.notify_waiters();
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment(*self.0.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wall(&self) -> SystemTime {
        const START_OF_2026: Duration = Duration::from_secs(1_767_225_600);
        UNIX_EPOCH + START_OF_2026 + self.now().0
    }

    async fn sleep_until(&self, at: Moment) {
        loop {
            // Listen first and look then: a move between the two is not missed.
            let moved = self.0.moved.notified();
            if self.now() >= at {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_clock_moves_and_sleeps() {
        let clock = SystemClock;
        let start = clock.now();
        clock.sleep_until(start + Duration::from_millis(20)).await;
        assert!(clock.now().since(start) >= Duration::from_millis(20));
        clock.sleep_until(start).await;
    }

    #[tokio::test]
    async fn the_manual_clock_moves_by_hand_alone() {
        let clock = ManualClock::new();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock
                    .sleep_until(Moment::default() + Duration::from_secs(60))
                    .await
            }
        });
        clock.advance(Duration::from_secs(59));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
    }
}
