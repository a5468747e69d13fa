//! (3) From the call of a release to the next one's having the lock, between two who take turns.

use std::time::{Duration, Instant};

use super::{Measure, metric};
use crate::bench::Bench;
use crate::crowd::Kind;
use crate::duet::hand_offs;
use crate::fault::{Fault, Verdict};
use crate::plan::Plan;
use crate::pushes::{self, BARE};
use crate::sheet::Point;
use crate::stats::percentile;
use crate::worker::Task;

/// How long both ends idle before a hand-off that is not warm.
const IDLE: Duration = Duration::from_millis(50);
/// With fewer, the 99th percentile is the maximum.
const FOR_P99: usize = 100;

pub(super) async fn run(bench: &mut Bench) {
    let short = Plan::hold(bench.place.store);
    let (warm, idling) = (bench.plan.warm, bench.plan.idling);
    for (state, hold, time) in [("warm", short, warm), ("after 50 ms idle", IDLE, idling)] {
        for (kind, between) in [(Kind::Clients, "clients"), (Kind::Processes, "processes")] {
            let setting = format!("{state}, between {between}");
            let point = Point::new(Measure::HandOff.name(), &setting, "", 0);
            if !bench.reaches(&point, kind) {
                continue;
            }
            between_two(bench, &point, kind, hold, time).await;
        }
    }
}

async fn between_two(bench: &mut Bench, point: &Point, kind: Kind, hold: Duration, time: Duration) {
    let name = bench.fresh_name();
    let place = bench.place.clone();
    let bare = async {
        let mut push = pushes::connect(&place, &name).await?;
        let mut times = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < time {
            times.push(pushes::hand_off(&mut *push, hold).await? as f64 / 1e3);
        }
        Ok(times)
    };
    let times = bench.attempt(point, BARE, bare).await;
    record(bench, point, BARE, times);
    for who in bench.who_wait() {
        if !who.is_here() && kind != Kind::Processes {
            continue;
        }
        let task = Task {
            place: bench.place.clone(),
            name: bench.fresh_name(),
        };
        let work = hand_offs(&who, kind, &task, hold, time);
        let times = bench.attempt(point, who.name, work).await;
        record(bench, point, who.name, times);
    }
}

fn record(bench: &mut Bench, point: &Point, who: &str, times: Option<Vec<f64>>) {
    let Some(times) = times else { return };
    let _ = put(bench, point, who, &times).map_err(|fault| bench.sheet.miss(point, who, &fault));
}

fn put(bench: &mut Bench, point: &Point, who: &str, times: &[f64]) -> Verdict {
    let sheet = &mut bench.sheet;
    let (p50, p99) = percentile(times, 0.5)
        .zip(percentile(times, 0.99))
        .ok_or_else(|| Fault::new("there was no hand-off"))?;
    sheet.put(point, who, metric::HAND_OFF_P50, p50);
    if times.len() < FOR_P99 {
        return Err(Fault::new(format!(
            "p99: fewer than {FOR_P99} hand-offs in a round"
        )));
    }
    sheet.put(point, who, metric::HAND_OFF_P99, p99);
    Ok(())
}
