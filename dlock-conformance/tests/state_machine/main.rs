//! One model of the locks against every store: random histories of several sessions without the core
//! around them, compared with the model after each step, and made as short as can be when they differ.
//!
//! ATOM-A, FAIR: the same claims are granted and wait, in the same order. ATOM-B: a withdraw takes out
//! its own claim alone. FENCE: tokens of conflicting grants rise, and a grant's token never changes.
//! ONCE: repeated requests and withdrawn claims. WAKE: whoever a step grants is told, and whoever holds
//! is told that another session waits, then and only then. CANCEL: nobody is left when all have gone.
//!
//! The model says it twice: in the contract's words, and as the `LockTable` that two of the stores are
//! made of. An oracle that shares code with what it judges shares its faults, too.
//!
//! A failure prints the seed that makes the same histories again. `PROPTEST_CASES` makes more of them.

mod model;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock_conformance::scene::LIMIT;
use dlock_conformance::target::Target;
use dlock_conformance::{Context, Verdict, stores};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use tokio::runtime::Runtime;

use model::{CLIENTS, Model, Step};
use run::{Run, Stage};

/// How long a push is waited for while a history that has failed is made shorter.
const HURRY: Duration = Duration::from_millis(200);

async fn stage(target: &Arc<dyn Target>, watched: bool) -> Verdict<Stage> {
    let mut links = Vec::new();
    for _ in 0..CLIENTS {
        links.push(target.link().await.because("connecting to the store")?);
    }
    Ok(Stage { links, watched })
}

/// Steps are counted until one fails. Then they only become fewer, and what is missing is not waited for
/// as long as it was at first.
async fn history(
    stage: &Stage,
    mut model: Model,
    steps: &[Step],
    seen: Option<&AtomicUsize>,
) -> Verdict {
    let patience = if seen.is_some() { LIMIT } else { HURRY };
    let mut run = Run::begin(stage, &model, patience).await?;
    for (place, step) in steps.iter().enumerate() {
        if let Some(seen) = seen {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        let after = Model::apply(model.clone(), step);
        let done = run.step(&model, step, &after).await;
        done.because(format!("step {}", place + 1))?;
        model = after;
    }
    run.end(&model).await.because("at the end")
}

/// So many histories on this store. Its server is removed also when they fail.
fn histories(name: &str, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let target = stores::named(name).expect("the suite knows its own stores");
    let result = match runtime.block_on(stage(&target, name.starts_with("etcd"))) {
        Ok(stage) => search(&runtime, &stage, cases),
        Err(failure) => Err(failure.to_string()),
    };
    if let Err(failure) = runtime.block_on(target.stop()) {
        eprintln!("{name}: {failure}");
    }
    if let Err(text) = result {
        panic!("{name}: {text}");
    }
}

fn search(runtime: &Runtime, stage: &Stage, cases: u32) -> Result<(), String> {
    let mut config = Config {
        // The seed says all, and no file has to be kept.
        failure_persistence: None,
        max_shrink_iters: 4096,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let strategy = Model::sequential_strategy(100..=200);
    let result = TestRunner::new(config).run(&strategy, |(model, steps, seen)| {
        let done = runtime.block_on(history(stage, model, &steps, seen.as_deref()));
        done.map_err(|failure| TestCaseError::fail(failure.to_string()))
    });
    let (reason, (model, steps, _)) = match result {
        Ok(()) => return Ok(()),
        Err(TestError::Fail(reason, history)) => (reason.to_string(), history),
        Err(TestError::Abort(reason)) => return Err(reason.to_string()),
    };
    let (reason, steps) = shorter(runtime, stage, &model, reason, steps);
    Err(format!(
        "{reason}\n\nthe shortest history found in which it happens:\n{}\n\
         PROPTEST_RNG_SEED={seed} makes the same histories again",
        model.told_all(&steps)
    ))
}

/// Leaves out steps that have become needless: proptest tries that only before it makes each step simpler.
fn shorter(
    runtime: &Runtime,
    stage: &Stage,
    model: &Model,
    mut reason: String,
    mut steps: Vec<Step>,
) -> (String, Vec<Step>) {
    for place in (0..steps.len()).rev() {
        let mut fewer = steps.clone();
        fewer.remove(place);
        if !model.allows(&fewer) {
            continue;
        }
        let done = runtime.block_on(history(stage, model.clone(), &fewer, None));
        if let Err(failure) = done {
            (reason, steps) = (failure.to_string(), fewer);
        }
    }
    (reason, steps)
}

#[test]
fn memory() {
    histories("memory", 64);
}

#[cfg(feature = "redis")]
#[test]
fn redis() {
    histories("redis", 6);
}

#[cfg(feature = "redis")]
#[test]
fn redis_7() {
    histories("redis-7", 4);
}

#[cfg(feature = "redis")]
#[test]
fn valkey() {
    histories("valkey", 4);
}

#[cfg(feature = "etcd")]
#[test]
fn etcd() {
    histories("etcd", 5);
}

#[cfg(feature = "jetstream")]
#[test]
fn jetstream() {
    histories("jetstream", 4);
}
