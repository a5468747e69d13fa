//! (6) A queue of many waiters: they are granted one after the other, until the last one was.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::task::JoinSet;

use super::{Measure, metric};
use crate::bench::Bench;
use crate::contestants::{Contestant, Locker};
use crate::fault::{Fault, Verdict};
use crate::machine;
use crate::pushes::{self, BARE};
use crate::sheet::Point;
use crate::stats::inversions;
use crate::store::Place;

/// Between two who ask, where the lock cannot tell who waits.
const APART: Duration = Duration::from_millis(5);

pub(super) async fn run(bench: &mut Bench) {
    for count in bench.plan.waiters {
        let point = Point::new(Measure::Drain.name(), "", "waiters", *count);
        bare(bench, &point, *count).await;
        for who in bench.who_wait() {
            if !who.is_here() {
                continue;
            }
            let (name, place) = (bench.fresh_name(), bench.place.clone());
            let work = drain(&who, &place, &name, *count);
            if let Some(drained) = bench.attempt(&point, who.name, work).await {
                let sheet = &mut bench.sheet;
                sheet.put(&point, who.name, metric::DRAINED, drained.milliseconds);
                let inversions = inversions(&drained.order) as f64;
                sheet.put(&point, who.name, metric::INVERSIONS, inversions);
            }
        }
    }
}

/// As many bare hand-offs, one after the other.
async fn bare(bench: &mut Bench, point: &Point, count: usize) {
    let (name, place) = (bench.fresh_name(), bench.place.clone());
    let work = async {
        let mut push = pushes::connect(&place, &name).await?;
        let mut nanoseconds = 0;
        for _ in 0..count {
            nanoseconds += pushes::hand_off(&mut *push, Duration::ZERO).await?;
        }
        Ok(nanoseconds as f64 / 1e6)
    };
    if let Some(milliseconds) = bench.attempt(point, BARE, work).await {
        bench.sheet.put(point, BARE, metric::DRAINED, milliseconds);
    }
}

struct Drained {
    milliseconds: f64,
    /// Who was granted, by their places in the order of asking.
    order: Vec<usize>,
}

async fn drain(who: &Contestant, place: &Place, name: &str, count: usize) -> Verdict<Drained> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let some = (count - clients.len()).min(50);
        clients.extend(try_join_all((0..some).map(|_| who.client(place))).await?);
    }
    let holder = who.client(place).await?;
    let held = holder.lock(name).await?;
    let mut waiting = JoinSet::new();
    for (number, client) in clients.iter().cloned().enumerate() {
        let lock = name.to_owned();
        waiting.spawn(async move {
            let held = client.lock(&lock).await?;
            let granted = machine::now();
            held.release().await?;
            Verdict::Ok((granted, number))
        });
        queued(&*holder, name, number + 1).await?;
    }
    let begun = machine::now();
    held.release().await?;
    let mut grants = Vec::with_capacity(count);
    while let Some(done) = waiting.join_next().await {
        grants.push(done??);
    }
    grants.sort_unstable();
    let last = grants.last().map_or(begun, |(granted, _)| *granted);
    join_all(clients.iter().chain([&holder]).map(|client| client.close())).await;
    Ok(Drained {
        milliseconds: (last - begun) as f64 / 1e6,
        order: grants.into_iter().map(|(_, number)| number).collect(),
    })
}

/// Waits until so many are in the queue, or, where nobody can tell, for a while.
async fn queued(holder: &dyn Locker, name: &str, count: usize) -> Verdict {
    for _ in 0..10_000 {
        match holder.waiting(name).await {
            None => {
                tokio::time::sleep(APART).await;
                return Ok(());
            }
            Some(waiting) if waiting >= count => return Ok(()),
            Some(_) => tokio::time::sleep(Duration::from_micros(300)).await,
        }
    }
    Err(Fault::new(format!("{count} waiters were not in the queue")))
}
