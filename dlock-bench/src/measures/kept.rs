//! (10) A claim that the client keeps for a while after its release, taken again by the same process, beside
//! Tokio's mutex that nobody else wants.

use super::local::{dlock, mutex, on_two_threads};
use super::{Measure, metric};
use crate::bench::Bench;
use crate::contestants::{DLOCK, FLOOR};
use crate::fault::{Fault, Verdict};
use crate::sheet::Point;

const OPTION: &str = "keep=200ms";

pub(super) async fn run(bench: &mut Bench) {
    let point = Point::new(Measure::Kept.name(), OPTION, "", 0);
    let url = bench.place.url_with(OPTION);
    if let Err(fault) = is_known(&url).await {
        bench.sheet.miss(&point, DLOCK, &fault);
        return;
    }
    let time = bench.plan.window.least;
    let work = on_two_threads(move || mutex(1, time));
    if let Some(nanoseconds) = bench.attempt(&point, FLOOR, work).await {
        bench.sheet.put(&point, FLOOR, metric::TAKEN, nanoseconds);
    }
    let name = bench.fresh_name();
    let before = bench.meter.read(false).await;
    let work = on_two_threads(move || dlock(url, name, 1, time));
    let Some(nanoseconds) = bench.attempt(&point, DLOCK, work).await else {
        return;
    };
    bench.sheet.put(&point, DLOCK, metric::TAKEN, nanoseconds);
    let after = bench.meter.read(false).await;
    match before.and_then(|before| Ok(after?.since(&before))) {
        Ok(counts) => {
            bench
                .sheet
                .put(&point, DLOCK, metric::STORE_OPERATIONS, counts.requests);
        }
        Err(fault) => bench.sheet.miss(&point, DLOCK, &fault),
    }
}

/// Whether this version of dlock has the option.
async fn is_known(url: &str) -> Verdict {
    match dlock::connect(url).await {
        Ok(client) => {
            let _ = client.close(std::time::Duration::from_secs(5)).await;
            Ok(())
        }
        Err(error @ dlock::Error::Config(_)) => {
            Err(Fault::new(format!("this version has no keep: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}
