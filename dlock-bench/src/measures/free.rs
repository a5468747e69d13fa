//! (1) Taking and releasing a lock that nobody else wants.

use super::{Measure, metric};
use crate::bench::Bench;
use crate::contestants::{Contestant, Locker};
use crate::crowd::{Crowd, Kind};
use crate::fault::Verdict;
use crate::machine;
use crate::sheet::Point;
use crate::stats::percentile;
use crate::store::Place;

/// All contestants alternate this often in a round: ratios near to one need it.
const SLICES: usize = 10;
const WARM_UP: usize = 20;

pub(super) async fn run(bench: &mut Bench) {
    let usual = Point::new(Measure::Free.name(), "", "", 0);
    let place = bench.place.clone();
    alternate(bench, &usual, &place).await;
    outside(bench, &usual).await;
    if !bench.place.store.is_redis() {
        return;
    }
    let durable = Point::new(Measure::Free.name(), "appendfsync always", "", 0);
    match bench.durable.clone() {
        Ok(place) => alternate(bench, &durable, &place).await,
        Err(fault) => bench.cannot(&durable, "all", fault.to_string()),
    }
}

struct Lane {
    who: Contestant,
    client: std::sync::Arc<dyn Locker>,
    name: String,
    /// Nanoseconds of each pair.
    pairs: Vec<f64>,
}

/// Those who run in this process. A lock that retries is, when it is free, the floor once more.
async fn alternate(bench: &mut Bench, point: &Point, place: &Place) {
    let mut lanes = Vec::new();
    for who in bench.in_turn() {
        let is_floor_again = who.name.contains("retry 100 ms");
        if !who.is_here() || is_floor_again {
            continue;
        }
        let name = bench.fresh_name();
        let begin = async {
            let client = who.client(place).await?;
            pairs(&*client, &name, WARM_UP).await?;
            Ok(client)
        };
        if let Some(client) = bench.attempt(point, who.name, begin).await {
            lanes.push(Lane {
                who,
                client,
                name,
                pairs: Vec::new(),
            });
        }
    }
    for _ in 0..SLICES {
        for lane in &mut lanes {
            let count = bench.plan.free / SLICES;
            let work = pairs(&*lane.client, &lane.name, count);
            let more = bench.attempt(point, lane.who.name, work).await;
            lane.pairs.extend(more.into_iter().flatten());
        }
    }
    for lane in lanes {
        lane.client.close().await;
        // A fault in the middle is written down, and leaves no half result.
        if lane.pairs.len() >= bench.plan.free {
            record(bench, point, lane.who.name, &lane.pairs);
        }
    }
}

async fn pairs(client: &dyn Locker, name: &str, count: usize) -> Verdict<Vec<f64>> {
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = machine::now();
        client.lock(name).await?.release().await?;
        pairs.push((machine::now() - begun) as f64);
    }
    Ok(pairs)
}

/// Those who are processes of their own, for a while, alone.
async fn outside(bench: &mut Bench, point: &Point) {
    let mut all = bench.in_turn();
    all.retain(|who| !who.is_here());
    for who in all {
        let mut crowd = Crowd::new(bench, who, Kind::Processes, 1);
        crowd.window.most = crowd.window.least;
        if let Some(seen) = bench.attempt(point, who.name, crowd.run()).await {
            record(bench, point, who.name, &seen.turns.laps());
        }
    }
}

fn record(bench: &mut Bench, point: &Point, who: &str, pairs: &[f64]) {
    let total: f64 = pairs.iter().sum();
    let sheet = &mut bench.sheet;
    let p50 = percentile(pairs, 0.5);
    let p99 = percentile(pairs, 0.99);
    if let Some((p50, p99)) = p50.zip(p99) {
        sheet.put(point, who, metric::PAIR_P50, p50 / 1e3);
        sheet.put(point, who, metric::PAIR_P99, p99 / 1e3);
        sheet.put(point, who, metric::PAIRS, pairs.len() as f64 * 1e9 / total);
    }
}
