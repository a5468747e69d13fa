//! What time it is on the server, as far as a client can know.
//!
//! Documents number tickets and tokens in microseconds since 1970 of the *server's* clock, so that
//! they go on rising when a document is lost (FENCE). The client learns that clock from the time in an
//! answer, and counts on by its own monotonic clock. It takes the time in the answer for that at which
//! the question was sent: so the estimate is never behind the server's clock, and ahead of it by at most
//! the time that the question took. That is less than it takes to write a document and to lose it again.
//!
//! An estimate that is off does no other harm: within a document
//! [`LockTable`](dlock_core::table::LockTable) makes numbers rise whatever the time, and whoever waits
//! for a lease to run out only looks too early or too late.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dlock_core::mutants::{Mutant, is_on};
use dlock_core::table::Stamp;

/// How fast two clocks may drift apart: 100 µs a second.
const DRIFT: u32 = 10_000;

#[derive(Debug, Default)]
pub(crate) struct ServerTime(Mutex<Option<Heard>>);

/// What the server's clock showed at a moment of this process's, or before.
#[derive(Clone, Copy, Debug)]
struct Heard {
    asked: Instant,
    /// How much too far ahead it may be.
    error: Duration,
    /// Microseconds since 1970.
    micros: u64,
}

impl Heard {
    /// The error now: clocks drift.
    fn error_now(&self) -> Duration {
        self.error + self.asked.elapsed() / DRIFT
    }

    /// Microseconds since 1970: the latest that it can be now.
    fn micros_now(&self) -> u64 {
        self.micros + u64::try_from(self.asked.elapsed().as_micros()).unwrap_or(0)
    }

    /// Whether no moment is possible by both.
    fn contradicts(&self, new: &Heard) -> bool {
        let earliest = |heard: &Heard| {
            let error = u64::try_from(heard.error_now().as_micros()).unwrap_or(0);
            heard.micros_now().saturating_sub(error)
        };
        self.micros_now() < earliest(new) || new.micros_now() < earliest(self)
    }
}

impl ServerTime {
    /// The server was asked then, and has just said that it is this time, in microseconds since 1970.
    /// Of two such answers the more precise one counts, unless they contradict each other: then it is
    /// the newer one. This machine was suspended, which its clock does not count, or the server's clock
    /// was set.
    pub(crate) fn hear(&self, asked: Instant, micros: u64) {
        let new = Heard {
            asked,
            error: asked.elapsed(),
            micros,
        };
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_none_or(|old| new.error <= old.error_now() || old.contradicts(&new)) {
            *heard = Some(new);
        }
    }

    /// Microseconds since 1970.
    pub(crate) fn micros(&self) -> u64 {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map_or(0, |heard| heard.micros_now())
    }

    pub(crate) fn stamp(&self) -> Stamp {
        let micros = self.micros();
        Stamp {
            order: if is_on(Mutant::TokensFromZero) {
                0
            } else {
                micros
            },
            millis: micros / 1000,
        }
    }

    /// How long ago this was, in microseconds since 1970 of the server's clock.
    pub(crate) fn since(&self, micros: u64) -> Duration {
        Duration::from_micros(self.micros().saturating_sub(micros))
    }
}

/// Reads `2026-11-21T14:54:13.602801922Z` as microseconds since 1970: how the server writes times
/// (RFC 3339, always UTC).
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let hour: u64 = time.next()?.parse().ok()?;
    let minute: u64 = time.next()?.parse().ok()?;
    let second = time.next()?;
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let second: u64 = second.parse().ok()?;
    let micros: u64 = format!("{fraction:0<6.6}").parse().ok()?;
    let known =
        (1970..3000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let days = known.then(|| days_since_1970(year, month, day))?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

/// Howard Hinnant's `days_from_civil`: <https://howardhinnant.github.io/date_algorithms.html>.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // The year begins in March, so that a leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_times_are_read() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00.5Z", Some(951_825_600_500_000)),
            (
                "2026-11-21T14:54:13.602801922Z",
                Some(1_795_272_853_602_801),
            ),
            ("2100-03-01T00:00:00.000001Z", Some(4_107_542_400_000_001)),
            ("2026-13-21T14:54:13Z", None),
            ("2026-11-21T14:54:13", None),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(parse(text), micros, "{text}");
        }
    }

    /// FENCE: the estimate counts on from the question, and the more precise one stays.
    #[test]
    fn the_clock_counts_on_from_the_question() {
        let time = ServerTime::default();
        assert_eq!(time.micros(), 0);
        let asked = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        time.hear(asked, 5_000_000);
        let ahead = u64::try_from(asked.elapsed().as_micros()).unwrap();
        assert!(time.micros() >= 5_005_000 && time.micros() >= 5_000_000 + ahead);
        assert_eq!(time.stamp().millis / 1000, 5);
        assert!(time.since(4_000_000) >= Duration::from_secs(1));
        let slow = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        // It may have been said 20 ms ago, or just now.
        time.hear(slow, time.micros() - 10_000);
        assert!(time.micros() < 6_000_000 && time.micros() >= 5_025_000);
        let before = time.micros();
        time.hear(Instant::now(), before - 1000);
        assert!(time.micros() < before + 5_000_000, "the more precise one");
    }

    /// FENCE: an estimate that the server contradicts is given up, however precise it was. The machine
    /// may have been suspended.
    #[test]
    fn the_server_is_believed_when_it_contradicts() {
        let time = ServerTime::default();
        time.hear(Instant::now(), 5_000_000);
        for now in [3_600_000_000, 60_000_000] {
            let slow = Instant::now();
            std::thread::sleep(Duration::from_millis(20));
            time.hear(slow, now);
            assert!((now..now + 10_000_000).contains(&time.micros()), "{now}");
        }
    }
}
