//! (2), (4), (5) Many for one lock: how often it changes hands, how evenly, and what that costs the store and
//! the clients.

use super::{Measure, metric};
use crate::bench::Bench;
use crate::contestants::{Contestant, FLOOR, Role};
use crate::crowd::{Crowd, Kind, Seen};
use crate::fault::{Fault, Verdict};
use crate::sheet::Point;

pub(super) async fn run(bench: &mut Bench) {
    for kind in [Kind::Tasks, Kind::Clients, Kind::Processes] {
        let counts = match kind {
            Kind::Tasks | Kind::Clients => bench.plan.contenders,
            Kind::Processes => bench.plan.processes,
        };
        for count in counts {
            let point = Point::new(
                Measure::Contended.name(),
                setting(kind),
                "contenders",
                *count,
            );
            if !bench.reaches(&point, kind) {
                continue;
            }
            for who in bench.for_one_lock() {
                one(bench, &point, who, kind, *count).await;
            }
        }
    }
}

pub(crate) const fn setting(kind: Kind) -> &'static str {
    match kind {
        Kind::Tasks => "tasks that share a client",
        Kind::Clients => "separate clients",
        Kind::Processes => "processes",
    }
}

async fn one(bench: &mut Bench, point: &Point, who: Contestant, kind: Kind, count: usize) {
    if !who.is_here() && kind != Kind::Processes {
        return;
    }
    if let (Kind::Tasks, Some(why)) = (kind, who.not_for_tasks) {
        bench.cannot(point, who.name, why);
        return;
    }
    // Operations back to back, which is the most that a lock without a queue can do.
    let is_alone = who.role == Role::Floor && bench.place.store.has_network();
    let (kind, contenders) = if is_alone {
        (Kind::Tasks, 1)
    } else {
        (kind, count)
    };
    let crowd = Crowd::new(bench, who, kind, contenders);
    let seen = bench.attempt(point, who.name, crowd.run()).await;
    if let Some(seen) = seen {
        record(bench, point, who.name, is_alone, seen);
    }
}

fn record(bench: &mut Bench, point: &Point, who: &str, is_alone: bool, seen: Seen) {
    let turns = &seen.turns;
    let sheet = &mut bench.sheet;
    sheet.put(point, who, metric::GRANTS, turns.grants_per_second());
    if is_alone {
        debug_assert_eq!(who, FLOOR);
        // Compared with what a lock does at its best: a change of owner each time.
        sheet.put(point, who, metric::CHANGES, turns.grants_per_second());
    } else {
        sheet.put(point, who, metric::CHANGES, turns.changes_per_second());
        let few = || Fault::new("fairness: fewer than ten grants for each contender");
        match turns.jain() {
            Some(jain) => sheet.put(point, who, metric::JAIN, jain),
            None => sheet.miss(point, who, &few()),
        }
    }
    let _ = costs(bench, point, who, &seen).map_err(|fault| bench.sheet.miss(point, who, &fault));
}

fn costs(bench: &mut Bench, point: &Point, who: &str, seen: &Seen) -> Verdict {
    let grants = seen.turns.grants() as f64;
    if grants == 0.0 {
        return Err(Fault::new("costs: nobody was granted in the window"));
    }
    let sheet = &mut bench.sheet;
    if let Some(cpu) = seen.cpu {
        sheet.put(point, who, metric::CPU, cpu.as_secs_f64() * 1e6 / grants);
    }
    let counts = seen
        .counts
        .as_ref()
        .map_err(|fault| Fault::new(format!("costs: {fault}")))?;
    sheet.put(point, who, metric::REQUESTS, counts.requests / grants);
    if let Some(commits) = counts.commits {
        sheet.put(point, who, metric::COMMITS, commits / grants);
    }
    sheet.put(point, who, metric::PUSHES, counts.pushes / grants);
    sheet.put(point, who, metric::BYTES, counts.bytes / grants);
    Ok(())
}
