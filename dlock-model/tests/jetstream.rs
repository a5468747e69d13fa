//! The JetStream shape in small, and what is found in its known-bad variants.

mod support;

use dlock_core::Mode::{Exclusive, ProtectedRead};
use dlock_model::cases::{check, lock, try_lock};
use dlock_model::jetstream::JetStream;
use dlock_model::{Bug, Faults, LockModel, Wish};
use support::{every_property_holds, is_found};

const NONE: Faults = Faults::NONE;

fn model(plan: &[Wish], faults: Faults) -> LockModel<JetStream> {
    LockModel::new(plan.to_vec(), faults)
}

fn late_copies() -> LockModel<JetStream> {
    let faults = Faults {
        give_up: 1,
        cancel: 1,
        stale: 1,
        ..NONE
    };
    model(&[lock(0, Exclusive), lock(1, Exclusive)], faults)
}

fn crashes() -> LockModel<JetStream> {
    let faults = Faults {
        crash: 1,
        ticks: 2,
        lapses: 1,
        ..NONE
    };
    model(&[lock(0, Exclusive), lock(1, Exclusive)], faults)
}

fn a_queue_of_modes() -> LockModel<JetStream> {
    let plan = [
        lock(0, Exclusive),
        lock(1, ProtectedRead),
        try_lock(1, ProtectedRead),
    ];
    model(
        &plan,
        Faults {
            cancel: 1,
            lose: 1,
            ..NONE
        },
    )
}

fn knocks() -> LockModel<JetStream> {
    let faults = Faults {
        knocks: 1,
        give_up: 1,
        cancel: 1,
        repeat: 1,
        ..NONE
    };
    model(&[lock(0, Exclusive), lock(1, Exclusive)], faults)
}

#[test]
fn every_property_holds_and_every_run_ends() {
    every_property_holds([late_copies(), crashes(), a_queue_of_modes(), knocks()]);
}

#[test]
fn a_crashed_holder_s_lock_passes_on() {
    assert!(check(crashes()).holds());
}

#[test]
fn every_known_bad_variant_is_found() {
    let two = [lock(0, Exclusive), lock(1, Exclusive)];
    let three = [lock(0, Exclusive), lock(1, Exclusive), lock(2, Exclusive)];
    let cancelled = model(&three, Faults { cancel: 1, ..NONE });
    let renewals = model(&two, Faults { ticks: 4, ..NONE });
    let lost = model(&two, Faults { lose: 1, ..NONE });
    let lagging = model(
        &two,
        Faults {
            stale: 1,
            early_looks: 1,
            ..NONE
        },
    );
    for (model, bug, properties) in [
        (cancelled, Bug::UncheckedWithdraw, &["ATOM-A", "FAIR"][..]),
        (late_copies(), Bug::ForgottenWithdraw, &["ONCE"]),
        (late_copies(), Bug::GuessedOutcome, &["COMMITTED", "ATOM-A"]),
        (renewals, Bug::DeadlineFromReply, &["ATOM-A"]),
        (lost.clone(), Bug::NeverLooks, &["PROGRESS"]),
        (lagging, Bug::UnprovenDeath, &["ATOM-A", "FAIR"]),
        (lost.clone(), Bug::UncheckedWrite, &["ATOM-A", "FAIR"]),
        (lost.clone(), Bug::ToldBeforeCommit, &["COMMITTED"]),
        (lost, Bug::ForgottenNumbers, &["FENCE"]),
        (knocks(), Bug::LateKnock, &["ONCE"]),
    ] {
        is_found(&model, bug, properties);
    }
}

/// What the other shapes rely on a connection for, the sequences do here.
#[test]
fn a_call_that_arrives_twice_changes_nothing() {
    let two = [lock(0, Exclusive), lock(1, Exclusive)];
    let faults = Faults {
        repeat: 2,
        cancel: 1,
        ..NONE
    };
    let verdict = check(model(&two, faults).with(Bug::RepeatedCalls));
    assert!(
        verdict.holds_but_for_examples(),
        "{}",
        verdict.traces.join("\n")
    );
}
