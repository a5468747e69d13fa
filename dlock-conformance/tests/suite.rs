//! Every case on every store, as tests: `redis::FAIR/200-waiters`.
//!
//! A harness of its own, because the cases are a list: a case that is added runs on every store by
//! itself, and one that a store cannot run is *ignored*, not passed. The same program is the worker
//! that the cases about crashes start and kill.

use std::process::ExitCode;
use std::sync::Arc;

use dlock_conformance::case::{Case, cases};
use dlock_conformance::runner::{Outcome, run_one};
use dlock_conformance::target::Target;
use dlock_conformance::{cli, stores, worker};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(worker::ARGUMENT) {
        return cli::main();
    }
    let mut arguments = Arguments::from_args();
    // Cases mostly wait; which of them run side by side is decided by each one's pace.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let targets: Vec<(&str, Arc<dyn Target>)> = stores::BACKENDS
        .iter()
        .map(|name| {
            (
                *name,
                stores::named(name).expect("the suite knows its own stores"),
            )
        })
        .collect();
    // Case by case and not store by store: cases of one pace follow each other.
    let trials = cases()
        .iter()
        .flat_map(|case| {
            targets
                .iter()
                .map(|(name, target)| trial(name, target, case))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    for (name, target) in &targets {
        let stopped = cli::block_on(target.stop());
        if let Err(failure) = stopped {
            eprintln!("{name}: {failure}");
        }
    }
    conclusion.exit_code()
}

fn trial(name: &str, target: &Arc<dyn Target>, case: &Case) -> Trial {
    let title = format!("{name}::{}", case.name());
    let (target, case) = (Arc::clone(target), case.clone());
    Trial::ignorable_test(title, move || match run_one(&target, &case).outcome {
        Outcome::Passed => Ok(Completion::Completed),
        Outcome::Failed { failure, history } => {
            Err(Failed::from(format!("{failure}\n\nhistory:\n{history}")))
        }
        Outcome::Ignored(reason) => Ok(Completion::ignored_with(reason)),
    })
}
