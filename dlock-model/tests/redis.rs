//! The Redis shape in small, and what is found in its known-bad variants.

mod support;

use dlock_core::Mode::{Exclusive, ProtectedRead};
use dlock_model::cases::{check, lock, try_lock};
use dlock_model::redis::Redis;
use dlock_model::{Bug, Faults, LockModel, Wish};
use support::{every_property_holds, is_found};

const NONE: Faults = Faults::NONE;

fn model(plan: &[Wish], faults: Faults) -> LockModel<Redis> {
    LockModel::new(plan.to_vec(), faults)
}

fn late_copies() -> LockModel<Redis> {
    let faults = Faults {
        give_up: 1,
        cancel: 1,
        lose: 1,
        ..NONE
    };
    model(&[lock(0, Exclusive), lock(1, Exclusive)], faults)
}

fn crashes() -> LockModel<Redis> {
    let faults = Faults {
        crash: 1,
        ticks: 2,
        lapses: 1,
        ..NONE
    };
    model(&[lock(0, Exclusive), lock(1, Exclusive)], faults)
}

fn a_queue_of_modes() -> LockModel<Redis> {
    let plan = [
        lock(0, Exclusive),
        lock(1, ProtectedRead),
        lock(2, Exclusive),
        try_lock(2, ProtectedRead),
    ];
    model(&plan, Faults { cancel: 1, ..NONE })
}

#[test]
fn every_property_holds_and_every_run_ends() {
    every_property_holds([late_copies(), crashes(), a_queue_of_modes()]);
}

#[test]
fn a_crashed_holder_s_lock_passes_on() {
    assert!(check(crashes()).holds());
}

#[test]
fn every_known_bad_variant_is_found() {
    let three = model(
        &[lock(0, Exclusive), lock(1, Exclusive), lock(2, Exclusive)],
        Faults { cancel: 1, ..NONE },
    );
    let renewals = model(
        &[lock(0, Exclusive), lock(1, Exclusive)],
        Faults { ticks: 4, ..NONE },
    );
    let lost = model(
        &[lock(0, Exclusive), lock(1, Exclusive)],
        Faults { lose: 1, ..NONE },
    );
    let repeated = model(&[lock(0, Exclusive)], Faults { repeat: 1, ..NONE });
    for (model, bug, properties) in [
        (three, Bug::UncheckedWithdraw, &["ATOM-A", "FAIR"][..]),
        (late_copies(), Bug::ForgottenWithdraw, &["ONCE"]),
        (late_copies(), Bug::GuessedOutcome, &["COMMITTED", "ATOM-A"]),
        (renewals, Bug::DeadlineFromReply, &["ATOM-A"]),
        (lost, Bug::NeverLooks, &["PROGRESS"]),
        (repeated, Bug::RepeatedCalls, &["ONCE"]),
        (a_queue_of_modes(), Bug::Barging, &["FAIR"]),
        (late_copies(), Bug::ForgottenNumbers, &["FENCE"]),
    ] {
        is_found(&model, bug, properties);
    }
}
