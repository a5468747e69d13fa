//! Runs cases: each in a runtime of its own, with a limit, its history checked, its panics caught.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::case::{Case, Pace};
use crate::gate::{Gate, at_once};
use crate::history::History;
use crate::scene::Scene;
use crate::sharing::Sharing;
use crate::target::Target;
use crate::{Failure, Verdict};

/// What came of a case.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The promise was kept.
    Passed,
    /// It was not.
    Failed {
        /// What was wrong.
        failure: String,
        /// The history that shows it.
        history: String,
    },
    /// It was not run, for this reason.
    Ignored(String),
}

/// A case that is done with.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The target's name.
    pub target: String,
    /// The case's name.
    pub case: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What happens while cases run.
#[derive(Debug)]
pub enum Event<'a> {
    /// A case begins.
    Begins(&'a Case),
    /// A case is done with.
    Ends(&'a Case, &'a Finished),
}

/// Runs these cases on a target, side by side where they allow it, and reports each as it begins and
/// ends. Returns them in their own order.
#[must_use]
pub fn run_all(
    target: &Arc<dyn Target>,
    cases: &[Case],
    report: impl Fn(Event<'_>) + Sync,
) -> Vec<Finished> {
    let mut finished = Vec::new();
    // One pace after the other; within one, each thread takes the next case that is left.
    for group in cases.chunk_by(|a, b| a.paced() == b.paced()) {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut mine = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(case) = group.get(place) else {
                    return mine;
                };
                report(Event::Begins(case));
                let done = run_one(target, case);
                report(Event::Ends(case, &done));
                mine.push((place, done));
            }
        };
        let threads = at_once(group.first().map_or(Pace::Alone, Case::paced));
        let mut done: Vec<(usize, Finished)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let results = workers.into_iter().map(|worker| worker.join());
            results.flat_map(Result::unwrap_or_default).collect()
        });
        done.sort_by_key(|(place, _)| *place);
        finished.extend(done.into_iter().map(|(_, done)| done));
    }
    finished
}

/// Runs one case on a target. Waits until the cases that run in this process let it.
#[must_use]
pub fn run_one(target: &Arc<dyn Target>, case: &Case) -> Finished {
    static GATE: std::sync::LazyLock<Gate> = std::sync::LazyLock::new(Gate::default);
    let finished = |outcome, took| Finished {
        target: target.name().to_owned(),
        case: case.name().to_owned(),
        outcome,
        took,
    };
    if let Some(reason) = ignored(target.as_ref(), case) {
        return finished(Outcome::Ignored(reason), Duration::ZERO);
    }
    let _pass = GATE.enter(case.paced(), target.name());
    let start = Instant::now();
    let history = History::default();
    let scene = Scene::new(Arc::clone(target), history.clone());
    let verdict = in_its_own_runtime(scene, case).and_then(|()| history.check());
    let outcome = match verdict {
        Ok(()) => Outcome::Passed,
        Err(failure) => Outcome::Failed {
            failure: failure.to_string(),
            history: history.to_string(),
        },
    };
    finished(outcome, start.elapsed())
}

/// Why a case is not run on this target, if it is not.
#[must_use]
pub fn ignored(target: &dyn Target, case: &Case) -> Option<String> {
    if Sharing::of_this_process() == Sharing::Keep && !case.is_for_kept() {
        return Some("a claim that is kept does not go back at once".to_owned());
    }
    case.needed().iter().find_map(|need| target.lacks(*need))
}

fn in_its_own_runtime(scene: Scene, case: &Case) -> Verdict {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no runtime: {error}")))?;
    let (case, limit, network) = (case.clone(), case.limit(), scene.clone());
    let verdict = runtime.block_on(async move {
        // A task of its own, so that its panics end nothing else.
        let task = tokio::spawn(async move { case.run(scene).await });
        match tokio::time::timeout(limit, task).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => Err(Failure::new(panic_text(error.try_into_panic().ok()))),
            Err(_) => Err(Failure::new(format!(
                "the case was not over after {limit:?}"
            ))),
        }
    });
    runtime.block_on(leave(network));
    runtime.shutdown_timeout(Duration::from_secs(1));
    verdict
}

/// Lets the clients that the case has dropped end their sessions in the background while there is a
/// network: sessions that lapse later would be the store's work while other cases count it.
async fn leave(network: Scene) {
    const QUIET: u32 = 8;
    let tasks = tokio::runtime::Handle::current().metrics();
    let (mut last, mut unchanged) = (tasks.num_alive_tasks(), 0);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = tasks.num_alive_tasks();
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
        if unchanged == QUIET {
            break;
        }
    }
    drop(network);
}

fn panic_text(panic: Option<Box<dyn Any + Send>>) -> String {
    let Some(panic) = panic else {
        return "the case was cancelled".to_owned();
    };
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a panic: {}", text.unwrap_or_default())
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
