//! LIVE-B: the store comes back.

use std::sync::Arc;
use std::time::Duration;

use dlock_core::Mode;

use super::live_b::{renews, watch};
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, Scene, within};
use crate::target::Condition;
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "LIVE-B/store-comes-back",
            "After a loss the same client takes locks again, in a new session, with greater tokens",
            comes_back,
        )
        .pace(Pace::Timed),
        Case::new(
            "LIVE-B/short-outage",
            "An outage shorter than the lease is ridden out: nothing is lost",
            short_outage,
        )
        .pace(Pace::Timed),
        Case::new(
            "LIVE-B/slow-network-after-a-cut",
            "A connection that is lost is replaced on a network so slow that this takes longer than an \
             attempt may: nothing is lost",
            slow_after_a_cut,
        )
        .pace(Pace::Timed),
    ]
}

async fn comes_back(scene: Scene) -> Verdict {
    let (lock, unused) = (scene.lock("back"), scene.lock("unused"));
    let (holder, other) = (
        scene.brief_client("holder").await?,
        scene.client("other").await?,
    );
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let token = held.token()?;
    scene.set(holder.link(), "holder", Condition::Cut)?;
    held.lost(LIMIT).await?;
    // Asked while the store is away: not a grant, and not a wait for ever.
    let asked = holder
        .client()
        .lock(&unused)
        .timeout(Duration::from_millis(300))
        .await;
    ensure!(asked.is_err(), "a lock was granted without a store");
    scene.set(holder.link(), "holder", Condition::Clear)?;
    // The guard of the old session is still there, and its lock is not in the way of the new one.
    let again = within(
        LIMIT,
        "a lock after the outage",
        holder.lock(&lock, Mode::Exclusive),
    )
    .await??;
    ensure!(
        !held.is_held() && again.is_held(),
        "the old guard came back to life"
    );
    ensure!(
        again.token()? > token,
        "FENCE: token {} after {token}",
        again.token()?
    );
    drop(held);
    ensure!(again.is_held(), "dropping the old guard ended the new hold");
    let seen = other.client().inspect(&lock).await?;
    ensure!(
        seen.holders.len() == 1 && seen.holders[0].token == Some(again.token()?),
        "the store shows {seen:?}"
    );
    again.release().await?;
    scene.until_free(other.client(), &lock, LIMIT).await?;
    scene.until_free(other.client(), &unused, LIMIT).await
}

async fn short_outage(scene: Scene) -> Verdict {
    const TTL: Duration = Duration::from_secs(3);
    let lock = scene.lock("short");
    let (holder, other) = (
        scene.client_for("holder", TTL).await?,
        scene.client("other").await?,
    );
    let held = Arc::new(holder.lock(&lock, Mode::Exclusive).await?);
    for condition in [Condition::Refused, Condition::Cut, Condition::CutFromStore] {
        renews(&held).await?;
        let watcher = watch(&held);
        scene.set(holder.link(), "holder", condition)?;
        // The outage is the case's stimulus: over before half of the lease is.
        tokio::time::sleep(holder.ttl().mul_f64(0.45)).await;
        scene.set(holder.link(), "holder", Condition::Clear)?;
        renews(&held).await?;
        ensure!(
            !watcher.is_finished() && held.is_held(),
            "lost in a short outage ({condition})"
        );
        watcher.abort();
        let tried = other.try_lock(&lock, Mode::Exclusive).await?;
        ensure!(
            tried.is_none(),
            "granted to another in a short outage ({condition})"
        );
    }
    Ok(())
}

/// An answer comes just within an attempt's limit, a quarter of the TTL. To connect takes more than one
/// answer, so no attempt has the time to do that and to be answered, too.
async fn slow_after_a_cut(scene: Scene) -> Verdict {
    const TTL: Duration = Duration::from_secs(12);
    let lock = scene.lock("slow-after-a-cut");
    let (holder, other) = (
        scene.client_for("holder", TTL).await?,
        scene.client("other").await?,
    );
    let held = Arc::new(holder.lock(&lock, Mode::Exclusive).await?);
    scene.set(holder.link(), "holder", Condition::Refused)?;
    // Long enough to cut every connection, and to refuse those that are made at once in their place.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let servers = scene.target().nodes().map_or(1, |nodes| nodes.count());
    let from_store = match servers {
        // More than half of an attempt, so that connecting and asking does not fit into one.
        1 => holder.ttl().mul_f64(0.17),
        // A client that has a choice gives each server less time to connect.
        _ => holder.ttl().mul_f64(0.06),
    };
    let slow = Condition::Slow {
        to_store: Duration::ZERO,
        from_store,
    };
    scene.set(holder.link(), "holder", slow)?;
    // Past the lease that stood when the network broke, and into those that came after it.
    let mut watcher = watch(&held);
    let lost = tokio::time::timeout(holder.ttl().mul_f64(1.2), &mut watcher).await;
    ensure!(
        lost.is_err(),
        "lost on a network that is slow, but not too slow"
    );
    let tried = other.try_lock(&lock, Mode::Exclusive).await?;
    ensure!(tried.is_none(), "granted to another on a slow network");
    scene.set(holder.link(), "holder", Condition::Clear)?;
    renews(&held).await?;
    ensure!(!watcher.is_finished() && held.is_held(), "lost afterwards");
    watcher.abort();
    let _ = watcher.await;
    let held = Arc::into_inner(held).ok_or_else(|| Failure::new("the guard is still watched"))?;
    held.release().await
}
