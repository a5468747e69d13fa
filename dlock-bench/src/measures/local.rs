//! (9) Tasks of one process on one lock, beside Tokio's mutex, on a runtime with two threads.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Measure, metric};
use crate::bench::Bench;
use crate::contestants::{DLOCK, FLOOR};
use crate::fault::{Context, Fault, Verdict};
use crate::machine;
use crate::sheet::Point;

const TASKS: usize = 64;
/// What is not confirmed by then ends with the TTL.
const CLOSE: Duration = Duration::from_secs(5);

pub(super) async fn run(bench: &mut Bench) {
    let point = Point::new(Measure::Local.name(), "one name", "tasks", TASKS);
    let time = bench.plan.window.least;
    for place_in_turn in 0..2 {
        if (place_in_turn + bench.sheet.round).is_multiple_of(2) {
            let work = on_two_threads(move || mutex(TASKS, time));
            if let Some(nanoseconds) = bench.attempt(&point, FLOOR, work).await {
                bench
                    .sheet
                    .put(&point, FLOOR, metric::HAND_OVER, nanoseconds);
            }
        } else {
            let (url, name) = (bench.place.url.clone(), bench.fresh_name());
            let work = on_two_threads(move || dlock(url, name, TASKS, time));
            if let Some(nanoseconds) = bench.attempt(&point, DLOCK, work).await {
                bench
                    .sheet
                    .put(&point, DLOCK, metric::HAND_OVER, nanoseconds);
            }
        }
    }
}

/// Runs it on a runtime of its own with two threads, as on a small machine. They are not bound to the
/// clients' processors: what is compared happens in this process, and on one processor no two threads would
/// meet at the lock.
pub(super) async fn on_two_threads<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Verdict<T>
where
    T: Send + 'static,
    F: Future<Output = Verdict<T>>,
{
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(2).enable_all();
    let runtime = builder.on_thread_start(machine::unbind_thread).build()?;
    let thread = tokio::task::spawn_blocking(move || runtime.block_on(work()));
    thread.await.doing("the runtime with two threads")?
}

/// Tokio's mutex.
pub(super) async fn mutex(tasks: usize, time: Duration) -> Verdict<f64> {
    let mutex = Arc::new(tokio::sync::Mutex::new(()));
    hammer(tasks, time, move || {
        let mutex = Arc::clone(&mutex);
        async move {
            drop(mutex.lock().await);
            Ok(())
        }
    })
    .await
}

/// dlock, at this URL.
pub(super) async fn dlock(url: String, name: String, tasks: usize, time: Duration) -> Verdict<f64> {
    let client = dlock::connect(&url).await?;
    let shared = client.clone();
    let done = hammer(tasks, time, move || {
        let (client, name) = (shared.clone(), name.clone());
        async move { Ok(client.lock(&name).await?.release().await?) }
    })
    .await;
    let _ = client.close(CLOSE).await;
    done
}

/// Tasks that take turns for this time; returns the nanoseconds for each turn.
async fn hammer<F>(
    tasks: usize,
    time: Duration,
    turn: impl Fn() -> F + Clone + Send + 'static,
) -> Verdict<f64>
where
    F: Future<Output = Verdict> + Send,
{
    let begun = Instant::now();
    // Not the clock for each turn: it would cost as much as the mutex.
    let stop = Arc::new(AtomicBool::new(false));
    let mut all = JoinSet::new();
    for _ in 0..tasks {
        let (turn, stop) = (turn.clone(), Arc::clone(&stop));
        all.spawn(async move {
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                turn().await?;
                count += 1;
                // A lock that is never waited for must not keep the runtime to itself.
                tokio::task::consume_budget().await;
            }
            Verdict::Ok(count)
        });
    }
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut turns = 0;
    while let Some(done) = all.join_next().await {
        turns += done??;
    }
    if turns == 0 {
        return Err(Fault::new("nobody had a turn"));
    }
    Ok(begun.elapsed().as_nanos() as f64 / turns as f64)
}
