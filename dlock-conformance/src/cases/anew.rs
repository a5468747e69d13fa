//! A lock that is given back and asked for anew at once: a store may do both in one operation, and all rules
//! hold for each of the two.

use std::time::Duration;

use dlock_core::{Guard, Mode, Request};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::costs::Reading;
use super::fair::waiting;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, Scene, within};
use crate::target::{Condition, Need};
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "FAIR/given-back-and-asked-for-anew",
            "Who gives a lock back and asks for it anew at once comes behind those who wait, in each mode",
            behind_who_waits,
        )
        .not_kept(),
        Case::new(
            "ATOM-B/given-back-and-asked-for-anew-without-a-network",
            "Giving back and asking anew that the network loses both happen once it is back",
            without_network,
        )
        .not_kept()
        .pace(Pace::Timed),
        Case::new(
            "COSTS/given-back-and-asked-for-anew",
            "Giving a lock back and asking for it anew at once is one operation where the store can do that",
            one_operation,
        )
        .not_kept()
        .needs(Need::Meter)
        .pace(Pace::Alone),
    ]
}

/// Drops the guard and asks for the lock before anybody else of this task can do anything.
fn anew<'a>(
    guard: Guard,
    request: Request<'a>,
) -> Verdict<BoxFuture<'a, Result<Guard, dlock_core::Error>>> {
    let mut asking = request.into_future();
    drop(guard);
    // Polled once, it is on its way.
    match (&mut asking).now_or_never() {
        None => Ok(asking),
        Some(Ok(guard)) => Ok(async { Ok(guard) }.boxed()),
        Some(Err(fault)) => Err(fault.into()),
    }
}

/// The history would take a hold that is given back here for one that goes on, so these are not recorded:
/// the tokens say in which order the locks were granted.
async fn behind_who_waits(scene: Scene) -> Verdict {
    for (mode, others) in [
        (Mode::Exclusive, Mode::Exclusive),
        (Mode::Exclusive, Mode::ProtectedRead),
        (Mode::ProtectedRead, Mode::Exclusive),
        (Mode::ConcurrentWrite, Mode::ProtectedWrite),
    ] {
        let lock = scene.lock(&format!("{mode}-{others}"));
        let (one, other) = (scene.client("one").await?, scene.client("other").await?);
        // Alone, it is granted it again.
        let client = one.client().clone();
        let first = client.lock(&lock).mode(mode).await?;
        let before = first.token();
        let again = anew(first, client.lock(&lock).mode(mode))?;
        let first = within(LIMIT, "a lock that nobody wants", again).await??;
        ensure!(
            mode.compatible(mode) || first.token() > before,
            "{before} and then {}",
            first.token()
        );
        let waits = other.ask(&lock, others);
        waiting(&scene, &one, &lock, 1).await?;
        let mut again = anew(first, client.lock(&lock).mode(mode))?;
        let theirs = waits.granted(LIMIT).await?;
        waiting(&scene, &other, &lock, 1).await?;
        ensure!(
            (&mut again).now_or_never().is_none(),
            "{mode}: granted beside {others}, which waited before"
        );
        theirs.release().await?;
        let last = within(LIMIT, "the lock once more", again).await??;
        last.release().await?;
        scene.until_free(&client, &lock, LIMIT).await?;
    }
    Ok(())
}

async fn without_network(scene: Scene) -> Verdict {
    // Its first attempt is given up after a quarter of that.
    let ttl = Duration::from_secs(4);
    let other = scene.client("other").await?;
    for condition in [
        Condition::Refused,
        Condition::CutToStore,
        Condition::CutFromStore,
    ] {
        let lock = scene.lock(&condition.to_string());
        // Another one each time: a lease does not outlast all three.
        let one = scene.client_for("one", ttl).await?;
        let guard = one.client().lock(&lock).await?;
        scene.set(one.link(), "one", condition)?;
        let mut asked = anew(guard, one.client().lock(&lock))?;
        let early = tokio::time::timeout(ttl * 3 / 8, &mut asked).await;
        ensure!(
            early.is_err(),
            "{condition}: granted without the store's answer"
        );
        scene.set(one.link(), "one", Condition::Clear)?;
        let guard = within(LIMIT, format!("{condition}: the lock once more"), asked).await??;
        guard.release().await?;
        scene.until_free(other.client(), &lock, LIMIT).await?;
    }
    Ok(())
}

async fn one_operation(scene: Scene) -> Verdict {
    const TIMES: u64 = 10;
    let lock = scene.lock("anew");
    let client = scene.client("client").await?;
    let client = client.client();
    let mut guard = client.lock(&lock).await?;
    let mut seen = Vec::new();
    // Where the session's task is quicker than this one, as on a busy machine, a release goes by itself.
    for _ in 0..5 {
        let mut reading = Reading::begin(&scene).await?;
        for _ in 0..TIMES {
            drop(guard);
            guard = client.lock(&lock).await?;
        }
        let done = reading.quiet().await?.requests;
        let price = TIMES * reading.prices().anew;
        if done <= price + TIMES / 3 {
            return Ok(guard.release().await?);
        }
        seen.push(done);
    }
    guard.release().await?;
    Err(Failure::new(format!(
        "{seen:?} requests for {TIMES} times anew each"
    )))
}
