//! Leases: a session's key in the bucket, how it is renewed, and how a session is declared dead.
//!
//! A session's key has a TTL, and the server deletes it when nobody has renewed it for so long. Each
//! renewal is a compare-and-set on the one before. A session is dead when somebody has written a death
//! mark on its key, again by compare-and-set:
//!
//! - expecting that there is none, when the key has gone;
//! - expecting the sequence that was seen, when that has not changed for a whole TTL of the observer's
//!   own clock, in case the server deletes late.
//!
//! So a renewal and a death mark exclude each other, whatever anybody has read before: reads may be
//! stale, only the committed mark proves. A session's claims are removed only after that (LIVE-A). A
//! renewal expects a sequence, and finds the mark or nothing: the dead stay dead.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dlock_core::mutants::{Mutant, is_on};
use dlock_core::{Owner, SessionId, StoreError, StoreErrorKind};
use serde::{Deserialize, Serialize};

use crate::backend::Store;
use crate::bucket;
use crate::error::strange;
use crate::link::{Ask, Put, Stored};

/// How long a death mark stays, in seconds. It has to outlive what the dead session may have sent;
/// after that its key is gone, which says the same.
const MARKED_FOR: u64 = 60 * 60;
/// When a lease that has run out is looked at again, until the server has deleted it.
const OVERDUE: Duration = Duration::from_millis(50);
/// How much longer than a TTL a key has to stay unchanged to count as dead.
const GRACE: Duration = Duration::from_millis(100);
/// How often a compare-and-set that says nothing is tried again at once.
const TRIES: usize = 8;
/// How many sessions are remembered.
const REMEMBERED: usize = 4096;

/// What a session's key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Record {
    Alive {
        owner: Owner,
        ttl_ms: u64,
        /// Counts the renewals.
        renewal: u64,
    },
    Dead {
        /// Who found out; itself if it was closed.
        marked_by: SessionId,
    },
}

impl Record {
    /// `None` where somebody has deleted the key by hand: that ends the session as if it had run out.
    fn read(subject: &str, stored: &Stored) -> Result<Option<Self>, StoreError> {
        if stored.deleted {
            return Ok(None);
        }
        let record = serde_json::from_slice(&stored.payload);
        record
            .map(Some)
            .map_err(|_| strange(subject, &stored.payload))
    }

    fn written(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self)
            .map_err(|fault| StoreError::refused("a lease cannot be written").because(fault))
    }
}

/// This client's own lease.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: SessionId,
    owner: Owner,
    pub(crate) ttl: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The sequence of the last renewal that is known.
    sequence: u64,
    renewals: u64,
    over: bool,
}

impl Lease {
    /// The server counts TTLs in whole seconds, at least one.
    pub(crate) fn new(id: SessionId, owner: Owner, ttl: Duration) -> Self {
        let seconds = ttl.as_millis().div_ceil(1000).max(1);
        Self {
            id,
            owner,
            ttl: Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if the session knows that it is over.
    pub(crate) fn stands(&self) -> Result<(), StoreError> {
        if self.state().over {
            return Err(StoreError::lapsed());
        }
        Ok(())
    }

    fn over(&self) -> StoreError {
        self.state().over = true;
        StoreError::lapsed()
    }

    /// Makes the lease, or renews it.
    ///
    /// An acknowledgement may have been lost, and then the sequence is another one than is known. It is
    /// learned from the leader, and the renewal is sent again: one that was acknowledged was sent in
    /// this very call, so the deadline counts from its beginning (LIVE-B).
    pub(crate) async fn renew(&self, store: &Store) -> Result<(), StoreError> {
        self.stands()?;
        let subject = store.layout.session(self.id);
        for _ in 0..TRIES {
            let State {
                sequence, renewals, ..
            } = *self.state();
            let record = Record::Alive {
                owner: self.owner.clone(),
                ttl_ms: u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX),
                renewal: renewals,
            };
            let payload = record.written()?;
            let ttl = Some(self.ttl.as_secs());
            let put = match store.link.put(&subject, sequence, payload, ttl).await {
                Err(fault) if fault.kind() == StoreErrorKind::Unavailable => {
                    // Out of reach, or lost with all that was in it?
                    if bucket::is_gone(&store.link).await? {
                        return Err(self.over());
                    }
                    return Err(fault);
                }
                put => put?,
            };
            match put {
                Put::Stored(sequence) => {
                    let mut state = self.state();
                    state.sequence = sequence;
                    state.renewals += 1;
                    return Ok(());
                }
                Put::Overtaken => self.learn(store, &subject).await?,
                Put::InFlight => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        Err(StoreError::unavailable("the lease's key is busy"))
    }

    /// The sequence of the lease as the leader has it.
    async fn learn(&self, store: &Store, subject: &str) -> Result<(), StoreError> {
        let Some(stored) = store.link.get(subject, Ask::Leader).await? else {
            return Err(self.over());
        };
        match Record::read(subject, &stored)? {
            Some(Record::Dead { .. }) | None if !is_on(Mutant::RevivedSession) => Err(self.over()),
            _ => {
                self.state().sequence = stored.sequence;
                Ok(())
            }
        }
    }

    /// Makes sure that nobody has declared the session dead.
    pub(crate) async fn confirm(&self, store: &Store) -> Result<(), StoreError> {
        self.stands()?;
        self.learn(store, &store.layout.session(self.id)).await
    }

    /// Ends the session: it marks itself. From then on everybody may remove its claims.
    pub(crate) async fn end(&self, store: &Store) -> Result<(), StoreError> {
        let subject = store.layout.session(self.id);
        let mark = Record::Dead { marked_by: self.id }.written()?;
        for _ in 0..TRIES {
            let State { sequence, over, .. } = *self.state();
            if over {
                return Ok(());
            }
            let put = store
                .link
                .put(&subject, sequence, mark.clone(), Some(MARKED_FOR));
            match put.await? {
                Put::Stored(_) => {
                    self.state().over = true;
                    return Ok(());
                }
                Put::Overtaken => match self.learn(store, &subject).await {
                    Err(_) if self.state().over => return Ok(()),
                    learned => learned?,
                },
                Put::InFlight => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        Err(StoreError::unavailable("the lease's key is busy"))
    }
}

/// What is known of another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It cannot have died before so much time is over.
    Alive(Duration),
    /// It is dead for everybody and for ever: that is committed.
    Dead,
}

/// How closely to look at another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// A lease that was seen before and cannot have run out yet is good enough. Its session may have
    /// ended before its time.
    Remembered,
    /// What the bucket says now.
    Fresh,
}

/// Other sessions' leases, as they were last seen.
#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<HashMap<SessionId, Observation>>);

#[derive(Clone, Copy, Debug)]
struct Observation {
    sequence: u64,
    /// When this sequence was first seen.
    since: Instant,
    /// When the lease can run out, by the server's time as far as it is known.
    lapses: Instant,
}

impl Observed {
    fn locked(&self) -> MutexGuard<'_, HashMap<SessionId, Observation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the session's lease surely stands, by what was seen before.
    fn remembered(&self, id: SessionId) -> Option<Duration> {
        let lapses = self.locked().get(&id)?.lapses;
        lapses
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    /// The session's lease was seen with this sequence. Since when, and how long it stands.
    fn see(&self, id: SessionId, sequence: u64, left: Duration) -> Observation {
        let now = Instant::now();
        let mut locked = self.locked();
        if locked.len() >= REMEMBERED {
            locked.retain(|_, seen| seen.lapses > now);
        }
        let seen = locked.entry(id).or_insert(Observation {
            sequence,
            since: now,
            lapses: now + left,
        });
        if seen.sequence != sequence {
            seen.sequence = sequence;
            seen.since = now;
        }
        seen.lapses = now + left;
        *seen
    }

    fn forget(&self, id: SessionId) {
        self.locked().remove(&id);
    }
}

impl Store {
    /// Whether a session that is in the way still lives. If its lease has run out it is declared dead,
    /// on behalf of `observer`.
    pub(crate) async fn examine(
        &self,
        id: SessionId,
        observer: SessionId,
        sight: Sight,
    ) -> Result<Life, StoreError> {
        if sight == Sight::Remembered
            && let Some(left) = self.observed.remembered(id)
        {
            return Ok(Life::Alive(left));
        }
        let subject = self.layout.session(id);
        let mut ask = Ask::Anyone;
        for _ in 0..TRIES {
            let expected = match self.link.get(&subject, ask).await? {
                None => 0,
                Some(stored) => match Record::read(&subject, &stored)? {
                    None => stored.sequence,
                    Some(Record::Dead { .. }) => {
                        self.observed.forget(id);
                        return Ok(Life::Dead);
                    }
                    Some(Record::Alive { ttl_ms, .. }) => {
                        let ttl = Duration::from_millis(ttl_ms);
                        let left = ttl.saturating_sub(self.time.since(stored.at));
                        let seen = self.observed.see(id, stored.sequence, left);
                        if seen.since.elapsed() < ttl + GRACE || is_on(Mutant::LostTtl) {
                            return Ok(Life::Alive(left.max(OVERDUE)));
                        }
                        stored.sequence
                    }
                },
            };
            let mark = Record::Dead {
                marked_by: observer,
            }
            .written()?;
            match self
                .link
                .put(&subject, expected, mark, Some(MARKED_FOR))
                .await?
            {
                Put::Stored(_) => {
                    tracing::debug!(session = %id, "a session has died");
                    self.observed.forget(id);
                    return Ok(Life::Dead);
                }
                // What was read was stale: ask who knows.
                Put::Overtaken => ask = Ask::Leader,
                Put::InFlight => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        Ok(Life::Alive(OVERDUE))
    }

    /// Whether the session's key is there and bears no mark. Changes nothing.
    pub(crate) async fn seems_alive(&self, id: SessionId) -> Result<bool, StoreError> {
        let subject = self.layout.session(id);
        for ask in [Ask::Anyone, Ask::Leader] {
            // A replica may not have the key yet.
            if let Some(stored) = self.link.get(&subject, ask).await? {
                let record = Record::read(&subject, &stored)?;
                return Ok(matches!(record, Some(Record::Alive { .. })));
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_a_whole_number_of_seconds() {
        for (asked, granted) in [
            (1, 1),
            (999, 1),
            (1000, 1),
            (1001, 2),
            (2500, 3),
            (60_000, 60),
        ] {
            let ttl = Duration::from_millis(asked);
            let lease = Lease::new(SessionId::from(1), Owner::this_process(), ttl);
            assert_eq!(lease.ttl, Duration::from_secs(granted), "{asked} ms");
        }
    }

    /// People read it with `nats kv get`, and other versions of the library do too.
    #[test]
    fn a_lease_is_kept_like_this() {
        let owner = Owner {
            host: "h".into(),
            pid: 7,
            label: String::new(),
        };
        let alive = Record::Alive {
            owner,
            ttl_ms: 5000,
            renewal: 2,
        };
        let text = r#"{"state":"alive","owner":{"host":"h","pid":7,"label":""},"ttl_ms":5000,"renewal":2}"#;
        assert_eq!(String::from_utf8(alive.written().unwrap()).unwrap(), text);
        let dead = Record::Dead {
            marked_by: SessionId::from(255),
        };
        let text = r#"{"state":"dead","marked_by":"000000000000000000000000000000ff"}"#;
        assert_eq!(String::from_utf8(dead.written().unwrap()).unwrap(), text);
    }

    /// LIVE-A: a lease that does not change is seen to stay, one that is renewed is seen anew.
    #[test]
    fn an_observation_lasts_while_the_sequence_does() {
        let (observed, id) = (Observed::default(), SessionId::from(1));
        let minute = Duration::from_secs(60);
        assert_eq!(observed.remembered(id), None);
        let first = observed.see(id, 5, Duration::ZERO);
        assert_eq!(observed.remembered(id), None);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(observed.see(id, 5, minute).since, first.since);
        assert!(observed.remembered(id).unwrap() > minute / 2);
        assert!(observed.see(id, 6, minute).since > first.since);
    }
}
