//! ATOM-B: an unlock always unlocks, and never somebody else's lock.

use std::time::Duration;

use dlock_core::{Attempts, Mode, Outcome, Wait};

use super::fair::waiting;
use crate::case::{Case, Pace};
use crate::raw::{Raw, token};
use crate::scene::{LIMIT, Scene, within};
use crate::target::Condition;
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "ATOM-B/late-release",
            "A release that is repeated after somebody else has the lock frees nobody",
            late_release,
        ),
        Case::new(
            "ATOM-B/release-by-a-closed-session",
            "A release of a session that has been closed frees nobody",
            closed_session,
        ),
        Case::new(
            "ATOM-B/drop-in-a-runtime",
            "Dropping a guard in a task frees the lock",
            drop_in_runtime,
        ),
        Case::new(
            "ATOM-B/drop-on-a-plain-thread",
            "Dropping a guard on a thread that knows no runtime frees the lock",
            drop_on_thread,
        ),
        Case::new(
            "ATOM-B/drop-after-the-runtime",
            "Dropping a guard whose runtime has gone does not block or panic, and the lock is freed",
            drop_after_runtime,
        )
        .pace(Pace::Timed),
        Case::new(
            "ATOM-B/release-without-a-network",
            "A release that the network loses is repeated until it arrives",
            release_without_network,
        ).not_kept()
        .pace(Pace::Timed),
    ]
}

async fn late_release(scene: Scene) -> Verdict {
    let lock = scene.lock("late");
    let mut old = Raw::open(&scene, "old").await?;
    let mut new = Raw::open(&scene, "new").await?;
    let mut next = Raw::open(&scene, "next").await?;
    let first = old.claim(&lock, Mode::Exclusive)?;
    token(old.request(&first, Wait::InTurn).await?)?;
    old.withdraw(&first, Attempts::Answered).await?;
    let second = new.claim(&lock, Mode::Exclusive)?;
    let holds = token(new.request(&second, Wait::InTurn).await?)?;
    let third = next.claim(&lock, Mode::Exclusive)?;
    let waits = next.request(&third, Wait::InTurn).await?;
    ensure!(
        matches!(waits, Outcome::Waiting { .. }),
        "the third one: {waits:?}"
    );
    for attempts in [Attempts::Answered, Attempts::Unanswered, Attempts::Answered] {
        old.withdraw(&first, attempts).await?;
        let still = token(new.status(&second).await?)?;
        ensure!(still == holds, "its token was {holds}, and is {still}");
        let waits = next.status(&third).await?;
        ensure!(
            matches!(waits, Outcome::Waiting { .. }),
            "a late release granted {waits:?}"
        );
    }
    let seen = old.link.backend.inspect(&second.name).await?;
    ensure!(
        seen.holders.len() == 1 && seen.holders[0].id == second.id && seen.waiters.len() == 1,
        "a late release changed the lock: {seen:?}"
    );
    new.withdraw(&second, Attempts::Answered).await?;
    token(next.status(&third).await?)?;
    next.withdraw(&third, Attempts::Answered).await
}

async fn closed_session(scene: Scene) -> Verdict {
    let lock = scene.lock("closed");
    let mut old = Raw::open(&scene, "old").await?;
    let mut new = Raw::open(&scene, "new").await?;
    let first = old.claim(&lock, Mode::Exclusive)?;
    token(old.request(&first, Wait::InTurn).await?)?;
    old.session().close().await?;
    let second = new.claim(&lock, Mode::Exclusive)?;
    let holds = token(new.request(&second, Wait::InTurn).await?)?;
    // Whether it says that there is nothing to withdraw or that the session is over is all the same.
    let _ = old.session().withdraw(&first, Attempts::Unanswered).await;
    let _ = old.session().close().await;
    let again = old.session().request(&first, Wait::InTurn).await;
    ensure!(again.is_err(), "a closed session was answered {again:?}");
    let still = token(new.status(&second).await?)?;
    ensure!(still == holds, "its token was {holds}, and is {still}");
    new.withdraw(&second, Attempts::Answered).await
}

async fn drop_in_runtime(scene: Scene) -> Verdict {
    let lock = scene.lock("task");
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    tokio::spawn(async move { drop(held) }).await?;
    asking.granted(LIMIT).await?.release().await?;
    // And when the client itself is gone by then.
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    drop(holder);
    ensure!(held.is_held(), "the guard does not outlive its client");
    drop(held);
    scene.until_free(other.client(), &lock, LIMIT).await
}

async fn drop_on_thread(scene: Scene) -> Verdict {
    let lock = scene.lock("thread");
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    on_plain_thread(move || drop(held)).await?;
    asking.granted(LIMIT).await?.release().await
}

async fn drop_after_runtime(scene: Scene) -> Verdict {
    let lock = scene.lock("gone");
    let other = scene.client("other").await?;
    let (in_runtime, name) = (scene.clone(), lock.clone());
    let (ttl, gone, took) = on_plain_thread(move || -> Verdict<_> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (holder, guard) = runtime.block_on(async {
            let holder = in_runtime.brief_client("holder").await?;
            let held = holder.lock(&name, Mode::Exclusive).await?;
            Verdict::Ok((holder, held.into_guard("keeps beyond its runtime")?))
        })?;
        drop(runtime);
        let gone = in_runtime.history().now();
        in_runtime
            .history()
            .note("holder", "its runtime has gone; drops its guard");
        let held = guard.is_held();
        drop(guard);
        let took = in_runtime.history().now() - gone;
        ensure!(
            !held,
            "a guard without a runtime to renew its lease says that it is held"
        );
        Ok((holder.ttl(), gone, took))
    })
    .await??;
    ensure!(took < Duration::from_secs(1), "the drop took {took:?}");
    let bound = scene.bound(ttl).await?;
    let held = other
        .ask(&lock, Mode::Exclusive)
        .granted(bound + LIMIT)
        .await?;
    let freed = scene.history().now() - gone;
    ensure!(
        freed <= bound,
        "free after {freed:?}, and not within {bound:?}"
    );
    held.release().await
}

async fn release_without_network(scene: Scene) -> Verdict {
    let lock = scene.lock("lost");
    let ttl = Duration::from_secs(4);
    let (holder, other) = (
        scene.client_for("holder", ttl).await?,
        scene.client("other").await?,
    );
    for condition in [
        Condition::Refused,
        Condition::CutToStore,
        Condition::CutFromStore,
    ] {
        let held = holder.lock(&lock, Mode::Exclusive).await?;
        let asking = other.ask(&lock, Mode::Exclusive);
        waiting(&scene, &other, &lock, 1).await?;
        scene.set(holder.link(), "holder", condition)?;
        let mut release = Box::pin(held.release());
        // Long enough for the first attempt; the network is back long before the lease ends.
        let early = tokio::time::timeout(ttl / 10, &mut release).await;
        ensure!(
            early.is_err(),
            "{condition}: a release was confirmed that nobody can confirm"
        );
        scene.set(holder.link(), "holder", Condition::Clear)?;
        within(LIMIT, format!("{condition}: the release"), release).await??;
        let now_held = asking.granted(LIMIT).await?;
        now_held.release().await?;
    }
    Ok(())
}

/// Does it on a thread that knows no runtime.
///
/// # Errors
///
/// When it panics.
pub(super) async fn on_plain_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Verdict<T> {
    let (sender, done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = sender.send(work());
    });
    done.await
        .map_err(|_| Failure::new("a panic on a plain thread"))
}
