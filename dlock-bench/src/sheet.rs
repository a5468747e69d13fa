//! The results: what was measured, round by round, and what was not, with the reason. This is the JSON file.

use serde::{Deserialize, Serialize};

use crate::contestants::DLOCK;
use crate::fault::Fault;
use crate::stats;
use crate::store::Store;

/// One store's results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sheet {
    pub(crate) store: Store,
    /// Under which circumstances.
    pub(crate) about: About,
    pub(crate) rows: Vec<Row>,
    pub(crate) missing: Vec<Missing>,
    /// The round that is filled in now, from 0.
    #[serde(skip)]
    pub(crate) round: usize,
}

/// The circumstances of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) version: String,
    /// How to do the same again.
    pub(crate) command: String,
    pub(crate) machine: String,
    pub(crate) placement: String,
    pub(crate) size: String,
    pub(crate) rounds: usize,
    /// Seconds since 1970.
    pub(crate) when: u64,
}

/// Where in the plan something is measured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Point {
    /// One of [`crate::measures`].
    pub(crate) measure: String,
    /// Which variant of it; may be empty.
    pub(crate) setting: String,
    /// What grows: `contenders`, `names`, …; empty if nothing does.
    pub(crate) axis: String,
    pub(crate) at: u64,
}

impl Point {
    pub(crate) fn new(measure: &str, setting: &str, axis: &str, at: usize) -> Self {
        Self {
            measure: measure.to_owned(),
            setting: setting.to_owned(),
            axis: axis.to_owned(),
            at: at as u64,
        }
    }

    pub(crate) fn words(&self) -> String {
        let mut words = self.measure.clone();
        if !self.setting.is_empty() {
            words = format!("{words}, {}", self.setting);
        }
        if !self.axis.is_empty() {
            words = format!("{words}, {} {}", self.at, self.axis);
        }
        words
    }
}

/// A quantity and its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

impl Metric {
    pub(crate) const fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit }
    }
}

/// One quantity of one contestant at one point: a value for each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) point: Point,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) who: String,
    pub(crate) values: Vec<Option<f64>>,
}

impl Row {
    fn known(&self) -> Vec<f64> {
        self.values.iter().copied().flatten().collect()
    }

    pub(crate) fn median(&self) -> Option<f64> {
        stats::median(&self.known())
    }

    pub(crate) fn minimum(&self) -> Option<f64> {
        self.known().into_iter().reduce(f64::min)
    }

    pub(crate) fn maximum(&self) -> Option<f64> {
        self.known().into_iter().reduce(f64::max)
    }
}

/// What could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    #[serde(flatten)]
    pub(crate) point: Point,
    pub(crate) who: String,
    pub(crate) reason: String,
}

impl Sheet {
    pub(crate) fn new(store: Store, about: About) -> Self {
        Self {
            store,
            about,
            rows: Vec::new(),
            missing: Vec::new(),
            round: 0,
        }
    }

    pub(crate) fn put(&mut self, point: &Point, who: &str, metric: Metric, value: f64) {
        let place = self
            .rows
            .iter()
            .position(|row| row.point == *point && row.metric == metric.name && row.who == who);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row {
                point: point.clone(),
                metric: metric.name.to_owned(),
                unit: metric.unit.to_owned(),
                who: who.to_owned(),
                values: Vec::new(),
            });
            self.rows.len() - 1
        });
        let values = &mut self.rows[place].values;
        values.resize(self.round, None);
        values.push(Some(value));
    }

    /// The same reason is written down once for all rounds.
    pub(crate) fn miss(&mut self, point: &Point, who: &str, reason: &Fault) {
        let missing = Missing {
            point: point.clone(),
            who: who.to_owned(),
            reason: reason.to_string(),
        };
        if !self.missing.contains(&missing) {
            self.missing.push(missing);
        }
    }

    pub(crate) fn row(&self, point: &Point, metric: &str, who: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.point == *point && row.metric == metric && row.who == who)
    }

    /// The median over the rounds of dlock's value by this one's, in the same round.
    pub(crate) fn ratio(&self, row: &Row) -> Option<f64> {
        let ours = self.row(&row.point, &row.metric, DLOCK)?;
        stats::median_ratio(&ours.values, &row.values)
    }

    /// All points, in the order in which they were first measured.
    pub(crate) fn points(&self) -> Vec<&Point> {
        let mut points: Vec<&Point> = Vec::new();
        let all = self.rows.iter().map(|row| &row.point);
        for point in all.chain(self.missing.iter().map(|missing| &missing.point)) {
            if !points.contains(&point) {
                points.push(point);
            }
        }
        points
    }

    /// The metrics that were measured at a point.
    pub(crate) fn metrics(&self, point: &Point) -> Vec<&str> {
        let mut metrics: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| row.point == *point) {
            if !metrics.contains(&row.metric.as_str()) {
                metrics.push(&row.metric);
            }
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Metric = Metric::new("rate", "1/s");

    fn sheet() -> (Sheet, Point) {
        (
            Sheet::new(Store::Redis, About::default()),
            Point::new("contended", "clients", "contenders", 2),
        )
    }

    #[test]
    fn a_round_that_gave_nothing_stays_empty() {
        let (mut sheet, point) = sheet();
        sheet.put(&point, DLOCK, RATE, 10.0);
        sheet.put(&point, "peer", RATE, 5.0);
        sheet.round = 2;
        sheet.put(&point, DLOCK, RATE, 30.0);
        let row = sheet.row(&point, "rate", DLOCK).unwrap();
        assert_eq!(row.values, [Some(10.0), None, Some(30.0)]);
        assert_eq!(
            (row.minimum(), row.median(), row.maximum()),
            (Some(10.0), Some(20.0), Some(30.0))
        );
        let peer = sheet.row(&point, "rate", "peer").unwrap();
        assert_eq!(
            sheet.ratio(peer),
            Some(2.0),
            "of the one round that both have"
        );
    }

    #[test]
    fn a_reason_is_written_down_once_and_all_is_kept_in_the_file() {
        let (mut sheet, point) = sheet();
        sheet.put(&point, DLOCK, RATE, 10.0);
        sheet.miss(&point, "peer", &Fault::new("not here"));
        sheet.miss(&point, "peer", &Fault::new("not here"));
        assert_eq!(sheet.missing.len(), 1);
        let text = serde_json::to_string(&sheet).unwrap();
        let read: Sheet = serde_json::from_str(&text).unwrap();
        assert_eq!(read.missing, sheet.missing);
        assert_eq!(read.rows[0].values, sheet.rows[0].values);
        assert_eq!(read.points(), [&point]);
    }
}
