//! The models that are checked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dlock_core::{Mode, Wait};
use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use crate::claims::Wish;
use crate::model::{ActionOf, LockModel, Shape, World};

/// A claim that waits for its turn.
#[must_use]
pub fn lock(session: u8, mode: Mode) -> Wish {
    Wish {
        session,
        mode,
        wait: Wait::InTurn,
    }
}

/// A claim that may not wait.
#[must_use]
pub fn try_lock(session: u8, mode: Mode) -> Wish {
    Wish {
        wait: Wait::Never,
        ..lock(session, mode)
    }
}

/// What a whole search has found.
#[derive(Debug)]
pub struct Verdict {
    /// How many different states there are.
    pub states: usize,
    /// The length of the longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Each property, and whether it is as it should be.
    pub properties: Vec<(&'static str, bool)>,
    /// What led to a violation, in words.
    pub traces: Vec<String>,
}

impl Verdict {
    /// Whether all is as it should be.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.properties.iter().all(|(_, holds)| *holds)
    }

    /// The same, in a model where nobody crashes.
    #[must_use]
    pub fn holds_but_for_examples(&self) -> bool {
        self.traces.is_empty()
    }
}

/// Goes through all states.
pub fn check<S: Shape>(model: LockModel<S>) -> Verdict {
    let began = Instant::now();
    let properties: Vec<Property<LockModel<S>>> = model.properties();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let done = model
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = done.discoveries();
    let is_example = |name| done.discovery_classification(name).to_string() == "example";
    let verdict = |property: &Property<LockModel<S>>| {
        let expected = matches!(property.expectation, stateright::Expectation::Sometimes);
        (property.name, found.contains_key(property.name) == expected)
    };
    let bad = found.iter().filter(|(name, _)| !is_example(name));
    Verdict {
        states: done.unique_state_count(),
        depth: done.max_depth(),
        time: began.elapsed(),
        properties: properties.iter().map(verdict).collect(),
        traces: bad.map(|(name, path)| told(name, path)).collect(),
    }
}

fn told<S: Shape>(name: &str, path: &Path<World<S>, ActionOf<S>>) -> String {
    let mut text = format!("{name} is violated by:");
    for action in path.clone().into_actions() {
        text += &format!("\n  {action:?}");
    }
    text
}

/// The shortest way to a state in which this property does not hold.
pub fn violation<S: Shape>(model: LockModel<S>, property: &'static str) -> Option<String> {
    let done = model
        .checker()
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([property])))
        .spawn_bfs()
        .join();
    let path = done.discovery(property)?;
    Some(told(property, &path))
}
