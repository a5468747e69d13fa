//! Whether the store still tells the same story.
//!
//! A cluster that was restored from a backup has forgotten what happened since, but it may still know
//! this session and its claims. One that waited then would be granted with a token that is older than
//! those of grants that the store has forgotten (FENCE), and a place that this session remembers may be
//! somebody else's now. So the session counts as lapsed as soon as an answer shows an older state than
//! one that was known when the question was sent. The client's next session begins anew.
//!
//! Only linearizable answers are compared: any other may come from a member that is behind. Answers
//! may overtake one another, so each is held against what was known when *its* question was sent.

use std::sync::{Mutex, PoisonError};

use dlock_core::StoreError;
use etcd_client::ResponseHeader;

/// A state of the store, as the header of an answer tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    cluster: u64,
    /// The term of the last entry that the member has applied; 0 if it does not say.
    term: u64,
    revision: i64,
}

impl Point {
    fn of(header: &ResponseHeader) -> Self {
        Self {
            cluster: header.cluster_id(),
            term: header.raft_term(),
            revision: header.revision(),
        }
    }

    pub(crate) fn revision(self) -> i64 {
        self.revision
    }

    /// Whether one store can have been at this point first, and at the other later.
    fn may_precede(self, later: Point) -> bool {
        self == Point::default()
            || (self.cluster == later.cluster
                && self.revision <= later.revision
                && (self.term <= later.term || later.term == 0))
    }
}

/// The furthest point that a session has seen.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Point>);

impl History {
    /// What is known now: to be asked for before a question is sent.
    pub(crate) fn known(&self) -> Point {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the answer to a question that was sent when `known` was.
    pub(crate) fn check(
        &self,
        known: Point,
        header: Option<&ResponseHeader>,
    ) -> Result<Point, StoreError> {
        let header = header.ok_or_else(|| StoreError::ambiguous("an answer without a header"))?;
        self.advance(known, Point::of(header))
    }

    fn advance(&self, known: Point, answer: Point) -> Result<Point, StoreError> {
        if !known.may_precede(answer) {
            tracing::warn!(
                ?known,
                ?answer,
                "the store has gone back in time: it was restored or replaced; this session is over"
            );
            return Err(StoreError::lapsed());
        }
        let mut furthest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if furthest.revision <= answer.revision {
            *furthest = answer;
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use dlock_core::StoreErrorKind;

    use super::*;

    fn point(cluster: u64, term: u64, revision: i64) -> Point {
        Point {
            cluster,
            term,
            revision,
        }
    }

    /// FENCE: another cluster, an older term or an older revision end the session.
    #[test]
    fn a_store_that_goes_back_ends_the_session() {
        for (answer, stands) in [
            (point(1, 5, 10), true),
            (point(1, 5, 11), true),
            (point(1, 6, 10), true),
            (point(1, 0, 10), true),
            (point(1, 5, 9), false),
            (point(1, 4, 20), false),
            (point(2, 5, 10), false),
        ] {
            let history = History::default();
            let first = history.advance(history.known(), point(1, 5, 10)).unwrap();
            assert_eq!(history.known(), first);
            let result = history.advance(history.known(), answer);
            assert_eq!(result.is_ok(), stands, "{answer:?}");
            if let Err(fault) = result {
                assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
            }
        }
    }

    #[test]
    fn answers_that_overtake_one_another_do_not() {
        let history = History::default();
        history.advance(history.known(), point(1, 5, 10)).unwrap();
        let asked = history.known();
        history.advance(asked, point(1, 5, 12)).unwrap();
        history.advance(asked, point(1, 5, 11)).unwrap();
        assert_eq!(history.known(), point(1, 5, 12));
    }
}
