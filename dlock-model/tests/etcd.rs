//! The etcd shape in small, and what is found in its known-bad variants.

mod support;

use dlock_core::Mode::{Exclusive, ProtectedRead};
use dlock_model::cases::{check, lock, try_lock};
use dlock_model::etcd::Etcd;
use dlock_model::{Bug, Faults, LockModel, Wish};
use support::{every_property_holds, is_found};

const NONE: Faults = Faults::NONE;

fn model(plan: &[Wish], faults: Faults) -> LockModel<Etcd> {
    LockModel::new(plan.to_vec(), faults)
}

fn late_copies() -> LockModel<Etcd> {
    let faults = Faults {
        give_up: 1,
        cancel: 1,
        ..NONE
    };
    model(&[lock(0, Exclusive), lock(1, Exclusive)], faults)
}

fn crashes() -> LockModel<Etcd> {
    let faults = Faults {
        crash: 1,
        ticks: 1,
        breaks: 1,
        ..NONE
    };
    model(&[lock(0, Exclusive), lock(1, Exclusive)], faults)
}

fn a_queue_of_modes() -> LockModel<Etcd> {
    let plan = [
        lock(0, ProtectedRead),
        lock(1, ProtectedRead),
        lock(2, Exclusive),
    ];
    model(&plan, NONE)
}

fn two_of_one_session() -> LockModel<Etcd> {
    let plan = [
        lock(0, Exclusive),
        lock(0, Exclusive),
        try_lock(1, ProtectedRead),
    ];
    model(&plan, Faults { revokes: 1, ..NONE })
}

#[test]
fn every_property_holds_and_every_run_ends() {
    every_property_holds([
        late_copies(),
        crashes(),
        a_queue_of_modes(),
        two_of_one_session(),
    ]);
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
    let calm = model(&[lock(0, Exclusive), lock(1, Exclusive)], NONE);
    let clocks = model(
        &[lock(0, Exclusive), lock(1, Exclusive), lock(1, Exclusive)],
        Faults { give_up: 1, ..NONE },
    );
    let repeated = model(&[lock(0, Exclusive)], Faults { repeat: 1, ..NONE });
    for (model, bug, properties) in [
        (three, Bug::UncheckedWithdraw, &["ATOM-A", "FAIR"][..]),
        (late_copies(), Bug::ForgottenWithdraw, &["ONCE"]),
        (late_copies(), Bug::GuessedOutcome, &["COMMITTED", "ATOM-A"]),
        (renewals, Bug::DeadlineFromReply, &["ATOM-A"]),
        (repeated, Bug::RepeatedCalls, &["ONCE"]),
        (a_queue_of_modes(), Bug::EventIsGrant, &["FAIR", "ATOM-A"]),
        (two_of_one_session(), Bug::UnseenEnd, &["COMMITTED"]),
        (clocks, Bug::BaseAsOfNow, &["FENCE"]),
        (calm, Bug::BlindWatch, &["PROGRESS"]),
    ] {
        is_found(&model, bug, properties);
    }
}
