//! LIVE-B: a holder that cannot reach its store is told, before anybody else is granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dlock_core::{LossReason, Mode};

use super::fair::waiting;
use crate::actor::{Actor, Held};
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, Scene, eventually, within};
use crate::target::Condition;
use crate::{Failure, Verdict, ensure};

/// What is done to the network of a holder with a lease of so long.
type Break = fn(Duration) -> Condition;

pub(super) fn cases() -> Vec<Case> {
    let broken: [(&str, &str, Break); 6] = [
        ("cut", "cut in both directions", |_| Condition::Cut),
        ("cut-to-store", "cut towards the store", |_| {
            Condition::CutToStore
        }),
        ("cut-from-store", "cut from the store", |_| {
            Condition::CutFromStore
        }),
        ("refused", "cut and connections are refused", |_| {
            Condition::Refused
        }),
        ("answers-after-half-the-ttl", "slow", |ttl| slow(ttl / 4)),
        ("answers-after-twice-the-ttl", "very slow", slow),
    ];
    let mut cases: Vec<Case> = broken
        .into_iter()
        .map(|(name, how, condition)| {
            let what = format!(
                "A holder whose network is {how} is told of its loss before another is granted"
            );
            Case::new(format!("LIVE-B/{name}"), what, move |scene| {
                told_first(scene, condition)
            })
            .pace(Pace::Timed)
        })
        .collect();
    cases.push(
        Case::new(
            "LIVE-B/slow-replies",
            "With replies that take a sixth of the TTL, and then none, the loss is still told first",
            slow_replies,
        )
        .pace(Pace::Timed),
    );
    cases
}

fn slow(each_way: Duration) -> Condition {
    Condition::Slow {
        to_store: each_way,
        from_store: each_way,
    }
}

/// Looks at the guard all the time, so that the history knows until when it said that it was held.
pub(super) fn watch(held: &Arc<Held>) -> tokio::task::JoinHandle<()> {
    let held = Arc::clone(held);
    tokio::spawn(async move {
        while held.is_held() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

async fn told_first(scene: Scene, condition: Break) -> Verdict {
    let lock = scene.lock("cut");
    let (holder, other) = (
        scene.brief_client("holder").await?,
        scene.client("other").await?,
    );
    let held = Arc::new(holder.lock(&lock, Mode::Exclusive).await?);
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    renews(&held).await?;

    let watcher = watch(&held);
    let worked = Arc::new(AtomicU64::new(0));
    let work = tokio::spawn(protected(
        scene.clone(),
        Arc::clone(&held),
        Arc::clone(&worked),
    ));
    let (told, history) = (Arc::clone(&held), scene.history().clone());
    let lost = tokio::spawn(async move {
        let reason = told.lost(LIMIT).await?;
        Verdict::Ok((reason, history.now()))
    });
    scene.set(holder.link(), "holder", condition(holder.ttl()))?;
    // What still reaches the store may renew the lease until the holder's deadline.
    let limit = 2 * holder.ttl() + holder.client().capabilities().slack + LIMIT;
    let theirs = asking.granted(limit).await?;
    let granted = theirs.since();

    ensure!(
        !held.is_held(),
        "it is granted to the other, and the holder says that it holds"
    );
    ensure!(
        held.guard()?.remaining().is_zero(),
        "it is lost, and time remains"
    );
    let (reason, told_at) = within(LIMIT, "the holder is told", lost).await???;
    ensure!(
        told_at <= granted,
        "the holder was told at {told_at:?}, and the other was granted at {granted:?}"
    );
    ensure!(
        reason == LossReason::StoreUnreachable,
        "the reason is {reason:?}"
    );
    let stopped = within(LIMIT, "the protected work stops", work).await??;
    ensure!(stopped.is_err(), "the protected work was not stopped");
    let last = Duration::from_micros(worked.load(Ordering::Relaxed));
    ensure!(
        last <= granted,
        "the protected work went on at {last:?}, after the grant at {granted:?}"
    );
    watcher.await?;
    theirs.release().await
}

/// Works under the guard's protection, and notes when it last did.
async fn protected(
    scene: Scene,
    held: Arc<Held>,
    worked: Arc<AtomicU64>,
) -> Result<(), dlock_core::LockLost> {
    let Ok(guard) = held.guard() else {
        return Ok(());
    };
    let work = async {
        loop {
            let now = u64::try_from(scene.history().now().as_micros()).unwrap_or(u64::MAX);
            worked.store(now, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    guard.protect(work).await
}

/// Waits until the holder's lease has been renewed.
pub(super) async fn renews(held: &Held) -> Verdict {
    let guard = held.guard()?;
    let mut least = guard.remaining();
    let start = std::time::Instant::now();
    loop {
        let now = guard.remaining();
        if now > least {
            return Ok(());
        }
        least = now;
        ensure!(
            start.elapsed() < LIMIT && guard.is_held(),
            "the lease is not renewed"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A deadline that counts from the reply lies later than the store's by the time that the reply took
/// less the margin of a tenth: 0.84 s here, and that has to be well above the time that a busy machine
/// takes to try again, and that the store takes to see that a lease has run out (etcd looks every 0.5 s).
async fn slow_replies(scene: Scene) -> Verdict {
    const TTL: Duration = Duration::from_secs(12);
    let lock = scene.lock("slow");
    let (holder, other) = (
        scene.client_for("holder", TTL).await?,
        scene.client("other").await?,
    );
    let held = Arc::new(holder.lock(&lock, Mode::Exclusive).await?);
    // Below the quarter of the TTL after which an attempt is given up.
    let from_store = holder.ttl().mul_f64(0.17);
    let to_store = Duration::ZERO;
    scene.set(
        holder.link(),
        "holder",
        Condition::Slow {
            to_store,
            from_store,
        },
    )?;
    // The first renewal may have been sent before; the second one's reply was slow.
    renews(&held).await?;
    renews(&held).await?;
    scene.set(holder.link(), "holder", Condition::Cut)?;
    let watcher = watch(&held);
    let theirs = keeps_trying(&other, &lock, holder.ttl() + LIMIT).await?;
    let still = held.is_held();
    ensure!(
        !still,
        "it is granted to the other, and the holder says that it holds"
    );
    eventually(LIMIT, "the holder is told", || watcher.is_finished()).await?;
    theirs.release().await
}

/// Tries without a pause: a grant comes as soon as the store can give it.
async fn keeps_trying(other: &Actor, lock: &str, limit: Duration) -> Verdict<Held> {
    let start = std::time::Instant::now();
    while start.elapsed() < limit {
        // Not through the actor: thousands of refused tries would fill the history.
        if let Some(guard) = other.client().lock(lock).try_now().await? {
            return Ok(other.hold(lock, guard));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(Failure::new(format!(
        "the lock is not free after {limit:?}"
    )))
}
