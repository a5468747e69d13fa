//! (7) Many locks held by one client: what keeping them costs the store, and their holder's memory. In a
//! process of its own, because memory that something else has left free would not be seen to grow.

use std::time::{Duration, Instant};

use super::{Measure, metric};
use crate::bench::Bench;
use crate::contestants::DLOCK;
use crate::counters::Meter;
use crate::fault::{Fault, Verdict};
use crate::holder::Holder;
use crate::sheet::Point;

/// Short, so that a run need not wait long for heartbeats.
const TTL: Duration = Duration::from_secs(3);
/// So many TTLs are watched.
const TTLS: u32 = 2;
/// What follows the last grant has been sent by then.
const SETTLED: Duration = Duration::from_millis(300);

pub(super) async fn run(bench: &mut Bench) {
    for count in [1, bench.plan.locks] {
        let point = Point::new(
            Measure::ManyLocks.name(),
            "held by one client",
            "locks",
            count,
        );
        let url = bench.place.url_with(&format!("ttl={}s", TTL.as_secs()));
        let prefix = bench.fresh_name();
        let meter = bench.meter.clone();
        let work = async {
            let holder = Holder::start(&url, &prefix, count).await?;
            let beats = heartbeats(&meter).await;
            let memory = holder.memory();
            holder.finish().await?;
            Ok((memory, beats))
        };
        let Some((memory, beats)) = bench.attempt(&point, DLOCK, work).await else {
            continue;
        };
        if count > 1 {
            let each = memory as f64 / count as f64;
            bench.sheet.put(&point, DLOCK, metric::MEMORY, each);
        }
        match beats {
            Ok(beats) => bench.sheet.put(&point, DLOCK, metric::HEARTBEATS, beats),
            Err(fault) => {
                let fault = Fault::new(format!("heartbeats: {fault}"));
                bench.sheet.miss(&point, DLOCK, &fault);
            }
        }
    }
}

/// Requests in a TTL, while nobody asks for anything.
async fn heartbeats(meter: &Meter) -> Verdict<f64> {
    tokio::time::sleep(SETTLED).await;
    let before = meter.read(false).await?;
    let begun = Instant::now();
    tokio::time::sleep(TTLS * TTL).await;
    let after = meter.read(false).await?;
    let ttls = begun.elapsed().as_secs_f64() / TTL.as_secs_f64();
    Ok(after.since(&before).requests / ttls)
}
