//! For backends: when a connection on which nobody answers is to be left.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sync::{Mutex, MutexGuard};

/// A request that was given up before this time says nothing about its connection: a session that ends
/// drops what it has under way.
const LEAST: Duration = Duration::from_millis(200);

/// Decides when a connection on which nobody answers is to be left: one of these belongs to each
/// connection.
///
/// What made no sound may be dead, and then only another connection helps. Or the network is slow, or
/// the server busy, and then to connect again is more work for all, and comes to the same. So a silence
/// has to last for twice as long as it took to connect, which is about how long answers take; at least
/// 200 ms, and at most as long as to connect may take.
///
/// The silence counts while somebody waits, from the first request since the last answer. It goes on
/// over attempts that are given up and repeated, or else a connection would never be left whose patience
/// is longer than an attempt may take. Any answer ends it: a server that answers others is busy, and would
/// not be less so on another connection.
#[derive(Debug)]
pub struct Patience {
    lasts: Duration,
    silence: Mutex<Silence>,
}

#[derive(Debug)]
struct Silence {
    /// How many requests are waited for.
    waiting: usize,
    /// How long it had lasted by `since`.
    before: Duration,
    /// Goes on from here, if anybody waits.
    since: Instant,
}

impl Patience {
    /// For a connection that took so long to make, and could take `at_most` that long.
    #[must_use]
    pub fn new(connecting: Duration, at_most: Duration) -> Self {
        Self {
            lasts: (connecting * 2).min(at_most).max(LEAST),
            silence: Mutex::new(Silence {
                waiting: 0,
                before: Duration::ZERO,
                since: Instant::now(),
            }),
        }
    }

    /// How long a silence has to last.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        self.lasts
    }

    /// Waits for the answer to a request, be it an error. If this is dropped before, and the silence has
    /// lasted for long enough by then, it calls `leave`: nobody shall use the connection for anything new.
    pub async fn wait<T>(&self, request: impl Future<Output = T>, leave: impl FnOnce()) -> T {
        let waiting = self.asked(leave);
        let answer = request.await;
        waiting.answered();
        answer
    }

    /// Something was heard on the connection that ends the silence.
    pub fn heard(&self) {
        self.silence().end(Instant::now());
    }

    fn asked<F: FnOnce()>(&self, leave: F) -> Waiting<'_, F> {
        self.silence().asked(Instant::now());
        Waiting {
            patience: self,
            leave: Some(leave),
        }
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Silence {
    fn asked(&mut self, now: Instant) {
        if self.waiting == 0 {
            self.since = now;
        }
        self.waiting += 1;
    }

    fn end(&mut self, now: Instant) {
        self.before = Duration::ZERO;
        self.since = now;
    }

    /// One waits no more. Returns how long the silence has lasted.
    fn given_up(&mut self, now: Instant) -> Duration {
        self.waiting -= 1;
        self.before += now.saturating_duration_since(self.since);
        self.since = now;
        self.before
    }
}

/// Somebody waits for an answer.
struct Waiting<'a, F: FnOnce()> {
    patience: &'a Patience,
    leave: Option<F>,
}

impl<F: FnOnce()> Waiting<'_, F> {
    fn answered(mut self) {
        self.leave = None;
        let mut silence = self.patience.silence();
        silence.waiting -= 1;
        silence.end(Instant::now());
    }
}

impl<F: FnOnce()> Drop for Waiting<'_, F> {
    fn drop(&mut self) {
        let Some(leave) = self.leave.take() else {
            return;
        };
        let silent = self.patience.silence().given_up(Instant::now());
        if silent >= self.patience.lasts {
            leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn silence() -> (Silence, Instant) {
        let patience = Patience::new(SECOND, SECOND * 10);
        let silence = patience.silence.into_inner().unwrap();
        let now = silence.since;
        (silence, now)
    }

    #[test]
    fn it_lasts_for_twice_the_time_of_connecting_within_its_bounds() {
        let lasts = |connecting, at_most| Patience::new(connecting, at_most).lasts();
        assert_eq!(lasts(SECOND, SECOND * 5), SECOND * 2);
        assert_eq!(lasts(SECOND * 4, SECOND * 5), SECOND * 5);
        assert_eq!(lasts(Duration::from_millis(1), SECOND * 5), LEAST);
        assert_eq!(lasts(SECOND, Duration::from_millis(50)), LEAST);
    }

    /// LIVE-B: or else a dead connection whose patience is longer than an attempt would be kept.
    #[test]
    fn silence_goes_on_over_attempts_that_are_given_up() {
        let (mut silence, mut now) = silence();
        for attempt in 1..=4 {
            silence.asked(now);
            now += SECOND;
            assert_eq!(silence.given_up(now), SECOND * attempt);
        }
    }

    #[test]
    fn where_nobody_waits_there_is_no_silence() {
        let (mut silence, start) = silence();
        silence.asked(start);
        assert_eq!(silence.given_up(start + SECOND), SECOND);
        silence.asked(start + SECOND * 100);
        assert_eq!(silence.given_up(start + SECOND * 101), SECOND * 2);
    }

    #[test]
    fn requests_side_by_side_are_one_silence() {
        let (mut silence, start) = silence();
        silence.asked(start);
        silence.asked(start + SECOND);
        assert_eq!(silence.given_up(start + SECOND * 2), SECOND * 2);
        assert_eq!(silence.given_up(start + SECOND * 3), SECOND * 3);
    }

    /// A busy server is not left by those whose answers take longer than those of others.
    #[test]
    fn an_answer_to_anybody_ends_the_silence() {
        let (mut silence, start) = silence();
        silence.asked(start);
        silence.end(start + SECOND * 9);
        assert_eq!(silence.given_up(start + SECOND * 10), SECOND);
    }

    #[tokio::test]
    async fn who_gives_up_in_a_long_silence_leaves() {
        let patience = Patience::new(SECOND, SECOND);
        let (mut first, mut second) = (false, false);
        let given_up = |leave: &mut bool, long: bool| {
            let waiting = patience.asked(|| *leave = true);
            if long {
                patience.silence().before = SECOND;
            }
            drop(waiting);
        };
        given_up(&mut first, false);
        given_up(&mut second, true);
        assert_eq!((first, second), (false, true));
        // An answer is no reason to leave, however long it took; and it is the end of the silence.
        let mut third = false;
        patience.wait(async {}, || third = true).await;
        given_up(&mut third, false);
        assert!(!third);
        assert_eq!(patience.silence().waiting, 0);
    }
}
