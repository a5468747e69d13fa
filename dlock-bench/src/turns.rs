//! What contenders for one lock wrote down, and what can be read from it.

use crate::stats;

/// One grant, in nanoseconds on the clock that all processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) asked: u64,
    pub(crate) granted: u64,
    /// When the release was called, not when it came back.
    pub(crate) releasing: u64,
}

/// The turns of several contenders within a span of time.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Of each contender.
    grants: Vec<u64>,
    /// All turns in their order, each with its contender.
    merged: Vec<(Turn, usize)>,
    seconds: f64,
}

impl Turns {
    /// Those granted in `from..to`.
    pub(crate) fn within(logs: &[Vec<Turn>], from: u64, to: u64) -> Self {
        let counts = |turn: &&Turn| (from..to).contains(&turn.granted);
        let grants = logs
            .iter()
            .map(|log| log.iter().filter(counts).count() as u64);
        let mut merged: Vec<(Turn, usize)> = (0..)
            .zip(logs)
            .flat_map(|(who, log)| log.iter().filter(counts).map(move |turn| (*turn, who)))
            .collect();
        merged.sort_by_key(|(turn, _)| turn.granted);
        Self {
            grants: grants.collect(),
            merged,
            seconds: (to - from) as f64 / 1e9,
        }
    }

    pub(crate) fn grants(&self) -> u64 {
        self.grants.iter().sum()
    }

    pub(crate) fn grants_per_second(&self) -> f64 {
        self.grants() as f64 / self.seconds
    }

    /// Grants to somebody else than the holder before. A lock that polls is mostly re-taken by who has just
    /// released it, which is fast, and of no use to those who wait.
    pub(crate) fn changes_per_second(&self) -> f64 {
        let changes = self.pairs().filter(|((_, a), (_, b))| a != b).count();
        changes as f64 / self.seconds
    }

    /// How even the turns are; `None` when there are fewer than ten for each contender, with whom even a
    /// perfect queue is off by a whole turn.
    pub(crate) fn jain(&self) -> Option<f64> {
        let enough = self.grants() >= 10 * self.grants.len() as u64;
        enough.then(|| stats::jain(&self.grants))?
    }

    /// From one asking to the next, in nanoseconds, of a contender that is alone: a whole acquire and release.
    pub(crate) fn laps(&self) -> Vec<f64> {
        self.pairs()
            .map(|((before, _), (after, _))| after.asked.saturating_sub(before.asked) as f64)
            .collect()
    }

    /// How many grants began before the holder before had called its release: there must be none.
    pub(crate) fn overlaps(&self) -> usize {
        let overlapping = |((before, _), (after, _)): &(&(Turn, usize), &(Turn, usize))| {
            after.granted < before.releasing
        };
        self.pairs().filter(overlapping).count()
    }

    fn pairs(&self) -> impl Iterator<Item = (&(Turn, usize), &(Turn, usize))> {
        self.merged.iter().zip(self.merged.iter().skip(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked some time before.
    fn turn(granted: u64, releasing: u64) -> Turn {
        Turn {
            asked: granted.saturating_sub(5 * MS),
            granted,
            releasing,
        }
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn only_changes_of_the_owner_count_as_such() {
        let a = vec![
            turn(10 * MS, 11 * MS),
            turn(12 * MS, 13 * MS),
            turn(30 * MS, 31 * MS),
        ];
        let b = vec![turn(20 * MS, 21 * MS), turn(99 * MS, 99 * MS)];
        let turns = Turns::within(&[a, b], 10 * MS, 60 * MS);
        assert_eq!(turns.grants(), 4);
        assert!((turns.grants_per_second() - 80.0).abs() < 1e-9);
        assert!((turns.changes_per_second() - 40.0).abs() < 1e-9);
        assert_eq!(turns.overlaps(), 0);
        assert_eq!(turns.jain(), None, "too few turns to say");
    }

    #[test]
    fn two_holders_at_once_are_seen() {
        let a = vec![turn(10 * MS, 20 * MS)];
        let b = vec![turn(15 * MS, 30 * MS)];
        assert_eq!(Turns::within(&[a, b], 0, 100 * MS).overlaps(), 1);
    }
}
