//! What is checked of each shape.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::print_stdout)]

use dlock_model::cases::{check, violation};
use dlock_model::explore::is_acyclic;
use dlock_model::{Bug, LockModel, Shape};

/// Every property holds in these models, and every run of them ends.
pub(crate) fn every_property_holds<S: Shape>(models: impl IntoIterator<Item = LockModel<S>>) {
    for model in models {
        let verdict = check(model.clone());
        println!("{} states in {:?}", verdict.states, verdict.time);
        assert!(
            verdict.holds_but_for_examples(),
            "{}",
            verdict.traces.join("\n")
        );
        assert!(is_acyclic(&model));
    }
}

/// A known-bad variant of this model violates each of these properties.
pub(crate) fn is_found<S: Shape>(model: &LockModel<S>, bug: Bug, properties: &[&'static str]) {
    for property in properties {
        let found = violation(model.clone().with(bug), property);
        assert!(found.is_some(), "{bug:?} does not violate {property}");
    }
}
