//! ONCE: requests are idempotent, as the store itself sees them.

use dlock_core::{Attempts, Mode, Outcome, Wait};

use crate::case::Case;
use crate::raw::{Raw, token, waits};
use crate::scene::Scene;
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "ONCE/repeated-request",
            "A request repeated under its claim's id stays one claim, in its place, with its token",
            repeated_request,
        ),
        Case::new(
            "ONCE/repeated-withdraw",
            "A withdraw can be repeated, and a status never makes a claim",
            repeated_withdraw,
        ),
        Case::new(
            "ONCE/withdraw-before-request",
            "A request that arrives after its withdraw makes no claim, for as long as the session lives",
            withdraw_before_request,
        ),
        Case::new(
            "ONCE/withdrawn-while-waiting",
            "A waiting claim once withdrawn stays so when its request arrives again",
            withdrawn_while_waiting,
        ),
    ]
}

async fn repeated_request(scene: Scene) -> Verdict {
    let lock = scene.lock("repeated");
    let mut one = Raw::open(&scene, "one").await?;
    let mut two = Raw::open(&scene, "two").await?;
    let first = one.claim(&lock, Mode::Exclusive)?;
    let second = two.claim(&lock, Mode::Exclusive)?;
    let third = one.claim(&lock, Mode::Exclusive)?;
    let granted = token(one.request(&first, Wait::InTurn).await?)?;
    waits(two.request(&second, Wait::InTurn).await?)?;
    waits(one.request(&third, Wait::InTurn).await?)?;
    for wait in [Wait::InTurn, Wait::Never] {
        let again = token(one.request(&first, wait).await?)?;
        ensure!(again == granted, "its token was {granted}, and is {again}");
    }
    waits(two.request(&second, Wait::InTurn).await?)?;
    waits(two.status(&second).await?)?;
    let seen = one.link.backend.inspect(&first.name).await?;
    let ids: Vec<_> = seen
        .holders
        .iter()
        .chain(&seen.waiters)
        .map(|claim| claim.id)
        .collect();
    ensure!(
        ids == [first.id, second.id, third.id],
        "after repeats the lock has the claims {ids:?}"
    );
    one.withdraw(&first, Attempts::Answered).await?;
    let handed = token(two.status(&second).await?)?;
    ensure!(handed > granted, "FENCE: token {handed} after {granted}");
    let again = token(two.request(&second, Wait::InTurn).await?)?;
    ensure!(again == handed, "its token was {handed}, and is {again}");
    two.withdraw(&second, Attempts::Answered).await?;
    one.withdraw(&third, Attempts::Answered).await
}

async fn repeated_withdraw(scene: Scene) -> Verdict {
    let lock = scene.lock("withdrawn");
    let mut one = Raw::open(&scene, "one").await?;
    let claim = one.claim(&lock, Mode::Exclusive)?;
    let absent = one.status(&claim).await?;
    ensure!(
        absent == Outcome::Absent,
        "a claim that was never requested: {absent:?}"
    );
    one.withdraw(&claim, Attempts::Answered).await?;
    token(one.request(&claim, Wait::InTurn).await?)?;
    for _ in 0..3 {
        one.withdraw(&claim, Attempts::Answered).await?;
    }
    let absent = one.status(&claim).await?;
    ensure!(
        absent == Outcome::Absent,
        "a claim that was withdrawn: {absent:?}"
    );
    let taken = one.claim(&lock, Mode::Exclusive)?;
    token(one.request(&taken, Wait::Never).await?)?;
    let refused = one.claim(&lock, Mode::Exclusive)?;
    let absent = one.request(&refused, Wait::Never).await?;
    ensure!(
        absent == Outcome::Absent,
        "a request that may not wait: {absent:?}"
    );
    let seen = one.link.backend.inspect(&claim.name).await?;
    ensure!(
        seen.holders.len() == 1 && seen.waiters.is_empty(),
        "the lock has more than one claim: {seen:?}"
    );
    one.withdraw(&taken, Attempts::Answered).await
}

async fn withdraw_before_request(scene: Scene) -> Verdict {
    let lock = scene.lock("late");
    let mut one = Raw::open(&scene, "one").await?;
    for wait in [Wait::InTurn, Wait::Never] {
        let claim = one.claim(&lock, Mode::Exclusive)?;
        one.withdraw(&claim, Attempts::Unanswered).await?;
        for _ in 0..2 {
            let late = one.request(&claim, wait).await?;
            ensure!(
                late == Outcome::Absent,
                "a request after its withdraw: {late:?}"
            );
        }
        let seen = one.link.backend.inspect(&claim.name).await?;
        ensure!(seen.is_free(), "a request after its withdraw left {seen:?}");
    }
    // The mark is about those claims alone.
    let other = one.claim(&lock, Mode::Exclusive)?;
    token(one.request(&other, Wait::InTurn).await?)?;
    one.withdraw(&other, Attempts::Answered).await
}

async fn withdrawn_while_waiting(scene: Scene) -> Verdict {
    let lock = scene.lock("waiting");
    let mut one = Raw::open(&scene, "one").await?;
    let mut two = Raw::open(&scene, "two").await?;
    let holds = one.claim(&lock, Mode::Exclusive)?;
    token(one.request(&holds, Wait::InTurn).await?)?;
    let claim = two.claim(&lock, Mode::Exclusive)?;
    waits(two.request(&claim, Wait::InTurn).await?)?;
    two.withdraw(&claim, Attempts::Unanswered).await?;
    let late = two.request(&claim, Wait::InTurn).await?;
    ensure!(
        late == Outcome::Absent,
        "a request after its withdraw: {late:?}"
    );
    one.withdraw(&holds, Attempts::Answered).await?;
    let late = two.request(&claim, Wait::InTurn).await?;
    ensure!(
        late == Outcome::Absent,
        "a request after its withdraw, of a free lock: {late:?}"
    );
    let seen = one.link.backend.inspect(&claim.name).await?;
    ensure!(seen.is_free(), "a request after its withdraw left {seen:?}");
    Ok(())
}
