//! What dlock is meant to reach, and whether it does.

use crate::contestants::{DLOCK, FLOOR};
use crate::measures::{Measure, metric};
use crate::print::number;
use crate::pushes::BARE;
use crate::sheet::{Point, Sheet};
use crate::store::Store;

/// Whether a target was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Met,
    Missed,
    /// It was not measured.
    Unknown,
}

/// A target and what came of it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) outcome: Outcome,
}

/// Where the value has to be.
#[derive(Clone, Copy, Debug)]
enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Aim {
    fn reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most}"),
            Self::AtLeast(least) => format!("≥ {least}"),
        }
    }
}

fn judge(what: impl Into<String>, aim: Aim, value: Option<f64>) -> Target {
    Target {
        what: format!("{} {}", what.into(), aim.words()),
        measured: value.map_or("not measured".to_owned(), |value| number(Some(value))),
        outcome: match value {
            None => Outcome::Unknown,
            Some(value) if aim.reached(value) => Outcome::Met,
            Some(_) => Outcome::Missed,
        },
    }
}

/// All targets of this store.
pub(crate) fn all(sheet: &Sheet) -> Vec<Target> {
    let mut all = Vec::new();
    free(sheet, &mut all);
    contended(sheet, &mut all);
    hand_off(sheet, &mut all);
    rest(sheet, &mut all);
    all
}

/// dlock's value by the other's.
fn ratio(sheet: &Sheet, point: &Point, metric: &str, other: &str) -> Option<f64> {
    sheet.ratio(sheet.row(point, metric, other)?)
}

fn value(sheet: &Sheet, point: &Point, metric: &str) -> Option<f64> {
    sheet.row(point, metric, DLOCK)?.median()
}

fn free(sheet: &Sheet, all: &mut Vec<Target>) {
    let most = match sheet.store {
        Store::Redis | Store::Valkey | Store::Etcd => 1.05,
        Store::Jetstream => 1.10,
        Store::Memory => return,
    };
    let point = Point::new(Measure::Free.name(), "", "", 0);
    let ratio = ratio(sheet, &point, metric::PAIR_P50.name, FLOOR);
    all.push(judge(
        "free lock, p50 by the floor's",
        Aim::AtMost(most),
        ratio,
    ));
}

fn clients(count: usize) -> Point {
    Point::new(
        Measure::Contended.name(),
        "separate clients",
        "contenders",
        count,
    )
}

fn contended(sheet: &Sheet, all: &mut Vec<Target>) {
    let least: &[(usize, f64)] = match sheet.store {
        Store::Redis | Store::Valkey => &[(2, 1.7), (8, 1.7), (64, 1.7), (256, 1.7)],
        Store::Etcd => &[(2, 0.85), (8, 0.7), (256, 0.55)],
        Store::Jetstream => &[(2, 0.5), (8, 0.5), (64, 0.5)],
        Store::Memory => return,
    };
    let changes = metric::CHANGES.name;
    for (count, least) in least {
        let what = format!("{count} separate clients: changes of owner by the floor's pairs");
        let ratio = ratio(sheet, &clients(*count), changes, FLOOR);
        all.push(judge(what, Aim::AtLeast(*least), ratio));
    }
    let many = if sheet.store == Store::Jetstream {
        64
    } else {
        256
    };
    if sheet.store != Store::Etcd {
        let rates = |count| Some(&sheet.row(&clients(count), changes, DLOCK)?.values);
        let flat = rates(many).zip(rates(8));
        let flat = flat.and_then(|(many, few)| crate::stats::median_ratio(many, few));
        let what = format!("changes of owner with {many} clients by those with 8");
        all.push(judge(what, Aim::AtLeast(0.95), flat));
    }
    let most = match sheet.store {
        Store::Etcd => 4.5,
        Store::Jetstream => 4.0,
        _ => 2.2,
    };
    let mut points = sheet.points();
    points.retain(|point| {
        point.measure == Measure::Contended.name() && point.setting == "separate clients"
    });
    let worst = |metric: &str, worse: fn(f64, f64) -> f64| {
        let values = points
            .iter()
            .filter_map(|point| value(sheet, point, metric));
        values.reduce(worse)
    };
    let requests = worst(metric::REQUESTS.name, f64::max);
    all.push(judge(
        "store requests per acquisition, the most at any number of clients",
        Aim::AtMost(most),
        requests,
    ));
    if sheet.store == Store::Etcd {
        let commits = worst(metric::COMMITS.name, f64::max);
        // Renewals are commits too, one now and then.
        all.push(judge(
            "store commits per acquisition, the most at any number of clients",
            Aim::AtMost(2.05),
            commits,
        ));
    }
    let jain = worst(metric::JAIN.name, f64::min);
    all.push(judge(
        "evenness of turns (Jain), the least at any number of clients",
        Aim::AtLeast(0.99),
        jain,
    ));
}

fn hand_off(sheet: &Sheet, all: &mut Vec<Target>) {
    if sheet.store == Store::Memory {
        return;
    }
    let point = |state: &str| {
        let setting = format!("{state}, between clients");
        Point::new(Measure::HandOff.name(), &setting, "", 0)
    };
    let (warm, idle) = (point("warm"), point("after 50 ms idle"));
    let p50 = metric::HAND_OFF_P50.name;
    let found = ratio(sheet, &warm, p50, BARE);
    all.push(judge(
        "hand-off warm, p50 by a bare one's",
        Aim::AtMost(1.25),
        found,
    ));
    let p99 = ratio(sheet, &warm, metric::HAND_OFF_P99.name, BARE);
    all.push(judge(
        "hand-off warm, p99 by a bare one's",
        Aim::AtMost(2.5),
        p99,
    ));
    let found = ratio(sheet, &idle, p50, BARE);
    all.push(judge(
        "hand-off after idling, p50 by a bare one's",
        Aim::AtMost(1.3),
        found,
    ));
}

fn rest(sheet: &Sheet, all: &mut Vec<Target>) {
    let tasks = Point::new(Measure::Local.name(), "one name", "tasks", 64);
    let found = ratio(sheet, &tasks, metric::HAND_OVER.name, FLOOR);
    all.push(judge(
        "64 tasks of one process by Tokio's mutex",
        Aim::AtMost(6.0),
        found,
    ));
    let kept = Point::new(Measure::Kept.name(), "keep=200ms", "", 0);
    let found = ratio(sheet, &kept, metric::TAKEN.name, FLOOR);
    all.push(judge(
        "a kept claim by Tokio's mutex",
        Aim::AtMost(3.0),
        found,
    ));
    if sheet.store == Store::Memory {
        return;
    }
    let operations = value(sheet, &kept, metric::STORE_OPERATIONS.name);
    // The claim is taken once and given back once, and a heartbeat may come meanwhile.
    all.push(judge(
        "store requests of a kept claim's whole run",
        Aim::AtMost(3.0),
        operations,
    ));
    let drain = Point::new(Measure::Drain.name(), "", "waiters", 1_000);
    let found = ratio(sheet, &drain, metric::DRAINED.name, BARE);
    all.push(judge(
        "1,000 waiters by 1,000 bare hand-offs",
        Aim::AtMost(1.3),
        found,
    ));
    let inversions = value(sheet, &drain, metric::INVERSIONS.name);
    all.push(judge(
        "1,000 waiters: pairs out of order",
        Aim::AtMost(0.0),
        inversions,
    ));
    let locks = |count| {
        Point::new(
            Measure::ManyLocks.name(),
            "held by one client",
            "locks",
            count,
        )
    };
    let beats = |count| {
        Some(
            &sheet
                .row(&locks(count), metric::HEARTBEATS.name, DLOCK)?
                .values,
        )
    };
    let found = beats(10_000).zip(beats(1));
    let found = found.and_then(|(many, one)| crate::stats::median_ratio(many, one));
    // Where a window begins and ends makes a difference of one heartbeat in six.
    all.push(judge(
        "heartbeats with 10,000 locks by those with one",
        Aim::AtMost(1.2),
        found,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::About;

    #[test]
    fn a_target_is_met_missed_or_unknown() {
        let mut sheet = Sheet::new(Store::Redis, About::default());
        let point = Point::new(Measure::Free.name(), "", "", 0);
        let outcome = |sheet: &Sheet| all(sheet)[0].outcome;
        assert_eq!(outcome(&sheet), Outcome::Unknown);
        sheet.put(&point, DLOCK, metric::PAIR_P50, 104.0);
        assert_eq!(outcome(&sheet), Outcome::Unknown, "the floor is missing");
        sheet.put(&point, FLOOR, metric::PAIR_P50, 100.0);
        assert_eq!(outcome(&sheet), Outcome::Met);
        sheet.round = 1;
        sheet.put(&point, DLOCK, metric::PAIR_P50, 130.0);
        sheet.put(&point, FLOOR, metric::PAIR_P50, 100.0);
        assert_eq!(outcome(&sheet), Outcome::Missed);
    }

    #[test]
    fn more_is_better_for_rates() {
        assert_eq!(
            judge("x", Aim::AtLeast(1.7), Some(1.6)).outcome,
            Outcome::Missed
        );
        assert_eq!(
            judge("x", Aim::AtLeast(1.7), Some(1.8)).outcome,
            Outcome::Met
        );
    }
}
