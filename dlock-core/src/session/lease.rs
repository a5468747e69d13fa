//! A session's deadline: until when its locks are surely held (LIVE-B).
//!
//! The store counts the TTL from the moment at which it executed the last renewal. The client does not
//! know that moment, but it is not before the renewal was *sent*. So the deadline is the sending of the
//! last acknowledged renewal, plus the TTL, less a margin for clocks that run at different speeds and
//! for the time that the holder needs to hear of it. A deadline counted from the reply would be late by
//! the way of the request.
//!
//! Whoever asks reads the clock: no I/O and no other task stands between the deadline and
//! [`Lease::lost`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::mutants::{Mutant, is_on};
use crate::sync::{AtomicU64, Mutex, MutexGuard};
use crate::{Clock, LossReason, Moment};

/// How much earlier than the store the client counts a lease as over: a tenth of the TTL, at most a
/// second, but a thousandth of a long one, for clocks that run at different speeds all the time.
fn margin(ttl: Duration) -> Duration {
    (ttl / 10).min(Duration::from_secs(1)).max(ttl / 1000)
}

/// Until when a lease of `ttl` is surely held that was granted in answer to something sent at `sent`.
fn deadline(sent: Moment, ttl: Duration) -> Moment {
    match (is_on(Mutant::NoMargin), is_on(Mutant::LateDeadline)) {
        (true, _) => sent + ttl,
        (_, true) => sent + 4 * ttl,
        _ => sent + (ttl - margin(ttl)),
    }
}

/// The clock is read at least this often while somebody waits for a loss: a runtime's timers may
/// stand still during a suspend. Below half of the margin, so that the loss is told in time.
fn look_every(ttl: Duration) -> Duration {
    (margin(ttl) / 2).min(Duration::from_millis(100))
}

#[derive(Debug)]
pub(crate) struct Lease {
    clock: Arc<dyn Clock>,
    /// Until when it surely stands, in [nanoseconds](Moment::nanos) of the clock; zero once it has ended.
    /// Every request and release asks for it, so it is read without a lock, and written under that of
    /// the state.
    deadline: AtomicU64,
    state: Mutex<State>,
    /// Wakes those who wait for the end.
    told: Notify,
}

#[derive(Debug)]
struct State {
    ttl: Duration,
    /// Whether a renewal has failed since the last one that was acknowledged.
    failing: bool,
    /// Set once, when the lease ends.
    ended: Option<LossReason>,
}

impl Lease {
    /// A lease that was granted for `ttl` in answer to something sent at `sent`.
    pub(crate) fn new(clock: Arc<dyn Clock>, sent: Moment, ttl: Duration) -> Self {
        let state = State {
            ttl,
            failing: false,
            ended: None,
        };
        Self {
            clock,
            deadline: AtomicU64::new(deadline(sent, ttl).nanos()),
            state: Mutex::new(state),
            told: Notify::new(),
        }
    }

    /// How long the store holds the lease without a renewal.
    pub(crate) fn ttl(&self) -> Duration {
        self.state().ttl
    }

    /// A renewal that was sent at `sent` was acknowledged. A lease that has ended stays so.
    pub(crate) fn renewed(&self, sent: Moment, ttl: Duration) {
        if self.ended().is_some() {
            return;
        }
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        state.ttl = ttl;
        // Not the later of the two deadlines: the store may have granted less than before.
        self.deadline
            .store(deadline(sent, ttl).nanos(), Ordering::Release);
        state.failing = false;
    }

    /// A renewal was refused, or not answered in time.
    pub(crate) fn not_renewed(&self) {
        self.state().failing = true;
    }

    /// The store says that the lease is gone. Before the deadline somebody must have ended it; after
    /// it, it ran out.
    pub(crate) fn lapsed(&self) {
        if self.ended().is_none() {
            self.end(LossReason::Revoked);
        }
    }

    /// Ends the lease, unless it has ended before.
    pub(crate) fn end(&self, reason: LossReason) {
        {
            let mut state = self.state();
            state.ended.get_or_insert(reason);
            self.deadline.store(0, Ordering::Release);
        }
        self.told.notify_waiters();
    }

    /// Why the lease is over, or `None` while it stands. Reads the clock.
    pub(crate) fn ended(&self) -> Option<LossReason> {
        self.ended_at(self.clock.now())
    }

    /// The same for somebody who has just read the clock.
    pub(crate) fn ended_at(&self, now: Moment) -> Option<LossReason> {
        if now.nanos() < self.deadline.load(Ordering::Acquire) {
            return None;
        }
        let reason = {
            let state = self.state();
            if state.ended.is_some() {
                return state.ended;
            }
            // A renewal may have been acknowledged since.
            if now.nanos() < self.deadline.load(Ordering::Acquire) {
                return None;
            }
            match state.failing {
                true => LossReason::StoreUnreachable,
                false => LossReason::Expired,
            }
        };
        self.end(reason);
        self.state().ended
    }

    /// How long the lease surely stands without another renewal.
    pub(crate) fn remaining(&self) -> Duration {
        let now = self.clock.now();
        match self.ended_at(now) {
            Some(_) => Duration::ZERO,
            None => self.deadline().since(now),
        }
    }

    /// The next moment at which the clock must be read, after this one.
    pub(crate) fn next_look(&self, now: Moment) -> Moment {
        self.deadline().min(now + look_every(self.ttl()))
    }

    /// Returns when the lease is over.
    pub(crate) async fn lost(&self) -> LossReason {
        loop {
            // Listen first and look then: an end between the two is not missed.
            let told = self.told.notified();
            let now = self.clock.now();
            if let Some(reason) = self.ended_at(now) {
                return reason;
            }
            tokio::select! {
                () = told => {}
                () = self.clock.sleep_until(self.next_look(now)) => {}
            }
        }
    }

    fn deadline(&self) -> Moment {
        let nanos = self.deadline.load(Ordering::Acquire);
        Moment::since_zero(Duration::from_nanos(nanos))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    const TTL: Duration = Duration::from_secs(10);

    fn lease() -> (ManualClock, Lease) {
        let clock = ManualClock::new();
        let lease = Lease::new(Arc::new(clock.clone()), clock.now(), TTL);
        (clock, lease)
    }

    /// LIVE-B: the deadline counts from the sending, and a margin is kept.
    #[test]
    fn the_deadline_counts_from_the_sending_of_the_last_acknowledged_renewal() {
        let (clock, lease) = lease();
        let sent = clock.now() + Duration::from_secs(3);
        clock.advance(Duration::from_secs(5));
        lease.renewed(sent, TTL);
        assert_eq!(lease.remaining(), Duration::from_secs(3 + 9 - 5));
        clock.advance(Duration::from_secs(7));
        assert_eq!(lease.ended(), Some(LossReason::Expired));
        assert_eq!(lease.remaining(), Duration::ZERO);
    }

    /// LIVE-B: a store may grant less than it did.
    #[test]
    fn a_renewal_for_a_shorter_time_brings_the_deadline_forward() {
        let (clock, lease) = lease();
        clock.advance(Duration::from_secs(1));
        lease.renewed(clock.now(), Duration::from_secs(2));
        assert_eq!(lease.remaining(), Duration::from_millis(1800));
    }

    #[test]
    fn what_has_ended_stays_so() {
        let (clock, lease) = lease();
        clock.advance(TTL);
        lease.renewed(clock.now(), TTL);
        assert_eq!(lease.ended(), Some(LossReason::Expired));
        lease.end(LossReason::Closed);
        assert_eq!(lease.ended(), Some(LossReason::Expired));
    }

    #[test]
    fn the_reason_tells_a_stalled_process_from_a_store_out_of_reach_and_from_an_operator() {
        let (clock, failing) = lease();
        failing.not_renewed();
        clock.advance(TTL);
        assert_eq!(failing.ended(), Some(LossReason::StoreUnreachable));
        let (_, revoked) = lease();
        revoked.lapsed();
        assert_eq!(revoked.ended(), Some(LossReason::Revoked));
        let (clock, late) = lease();
        clock.advance(TTL);
        late.lapsed();
        assert_eq!(late.ended(), Some(LossReason::Expired));
    }

    #[tokio::test]
    async fn lost_returns_at_the_deadline_without_anybody_else() {
        let (clock, lease) = lease();
        let lease = Arc::new(lease);
        let told = tokio::spawn({
            let lease = lease.clone();
            async move { lease.lost().await }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_millis(8_999));
        tokio::task::yield_now().await;
        assert!(!told.is_finished());
        clock.advance(Duration::from_millis(1));
        assert_eq!(told.await.unwrap(), LossReason::Expired);
    }
}
