//! ONCE on a bad network: requests that arrive late, and answers that do not.

use std::sync::Arc;
use std::time::Duration;

use dlock_core::{LockSnapshot, Mode};

use super::fair::waiting;
use crate::actor::Actor;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, Scene, eventually};
use crate::target::{Condition, Path};
use crate::{Context, Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "ONCE/late-request/free",
            "A request that the network holds back until after its withdraw takes no lock",
            |scene| late_request(scene, LateTo::FreeLock),
        )
        .pace(Pace::Timed),
        Case::new(
            "ONCE/late-request/held",
            "A request that the network holds back until after its withdraw takes no place in the queue",
            |scene| late_request(scene, LateTo::HeldLock),
        )
        .pace(Pace::Timed),
        Case::new(
            "ONCE/late-copy-of-a-granted-request",
            "A request held back, repeated, granted and released takes nothing when it arrives at last",
            late_copy,
        )
        .pace(Pace::Timed),
        Case::new(
            "ONCE/late-copy-of-a-release",
            "A release held back and repeated frees nothing when it arrives after the lock was taken again",
            late_release,
        )
        .pace(Pace::Timed),
        Case::new(
            "ONCE/lost-reply",
            "A request whose answer is lost is asked about, granted once, and is one claim",
            lost_reply,
        )
        .pace(Pace::Timed),
        Case::new(
            "ONCE/reset-storm",
            "While connections are reset all the time, each acquire is one claim, and nothing is left",
            reset_storm,
        )
        .pace(Pace::Timed),
        Case::new(
            "ONCE/slow-answers",
            "An answer that takes a second is waited for, and not asked for again and again",
            slow_answers,
        )
        .pace(Pace::Timed),
    ]
}

/// An attempt is given up after a quarter of it: short enough not to wait long for that.
const TTL: Duration = Duration::from_secs(4);

/// How long the store has for a request that is late. Less than after what time an attempt is given up.
const UNDISTURBED: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, PartialEq, Eq)]
enum LateTo {
    FreeLock,
    HeldLock,
}

fn path(actor: &Actor) -> Verdict<Arc<dyn Path>> {
    let path = actor.link().path.clone();
    path.ok_or_else(|| Failure::new("this link's network cannot be broken"))
}

/// Lets what was held back go, and gives it time to do what it should not.
async fn deliver(scene: &Scene, late: &Actor) -> Verdict {
    let path = path(late)?;
    scene
        .history()
        .note("network", "delivers what it has held back");
    path.deliver();
    eventually(LIMIT, "what was held back has left", || path.kept() == 0).await?;
    // That it has been executed, nobody says: it is a stimulus without an answer.
    tokio::time::sleep(UNDISTURBED).await;
    Ok(())
}

async fn late_request(scene: Scene, to: LateTo) -> Verdict {
    let lock = scene.lock("late");
    let (late, other) = (
        scene.client_for("late", TTL).await?,
        scene.client("other").await?,
    );
    // It knows the lock, so that what is held back is the request and not a question before it.
    late.lock(&lock, Mode::Exclusive).await?.release().await?;
    let held = match to {
        LateTo::FreeLock => None,
        LateTo::HeldLock => Some(other.lock(&lock, Mode::Exclusive).await?),
    };
    scene.set(late.link(), "late", Condition::Held)?;
    let kept = path(&late)?;
    let asking = late.ask(&lock, Mode::Exclusive);
    eventually(LIMIT, "the request is held back", || kept.kept() > 0).await?;
    scene.set(late.link(), "late", Condition::Clear)?;
    // The store shall have time to execute the request before it hears that it was given up.
    tokio::time::sleep(UNDISTURBED).await;
    scene.history().note("late", "drops its acquire");
    drop(asking);
    // The withdraw goes around what is held back, and is confirmed: then the session is idle. To see
    // that, take and release another lock behind it.
    let behind = scene.lock("behind");
    late.lock(&behind, Mode::Exclusive).await?.release().await?;
    tokio::time::sleep(late.ttl() / 2).await;
    deliver(&scene, &late).await?;
    let seen = other.client().inspect(&lock).await?;
    ensure!(
        seen.waiters.is_empty() && seen.holders.len() == usize::from(held.is_some()),
        "a request that was withdrawn has arrived and made a claim: {}",
        crate::scene::described(&seen)
    );
    if let Some(held) = held {
        held.release().await?;
    }
    other.lock(&lock, Mode::Exclusive).await?.release().await?;
    late.lock(&lock, Mode::Exclusive).await?.release().await
}

async fn late_copy(scene: Scene) -> Verdict {
    let lock = scene.lock("copy");
    let (late, other) = (
        scene.client_for("late", TTL).await?,
        scene.client("other").await?,
    );
    late.lock(&lock, Mode::Exclusive).await?.release().await?;
    scene.set(late.link(), "late", Condition::Held)?;
    let kept = path(&late)?;
    let asking = late.ask(&lock, Mode::Exclusive);
    eventually(LIMIT, "the request is held back", || kept.kept() > 0).await?;
    scene.set(late.link(), "late", Condition::Clear)?;
    // The attempt is given up and repeated, under the same claim.
    let first = asking.granted(LIMIT).await?;
    let seen = other.client().inspect(&lock).await?;
    ensure!(
        seen.holders.len() == 1,
        "one acquire made {} claims",
        seen.holders.len()
    );
    first.release().await?;
    let theirs = other.lock(&lock, Mode::Exclusive).await?;
    deliver(&scene, &late).await?;
    let seen = other.client().inspect(&lock).await?;
    ensure!(
        seen.waiters.is_empty() && seen.holders.len() == 1,
        "the late copy of a released request made a claim: {}",
        crate::scene::described(&seen)
    );
    theirs.release().await?;
    scene.until_free(other.client(), &lock, LIMIT).await
}

async fn late_release(scene: Scene) -> Verdict {
    let lock = scene.lock("release");
    let (late, other) = (
        scene.client_for("late", TTL).await?,
        scene.client("other").await?,
    );
    let first = late.lock(&lock, Mode::Exclusive).await?;
    scene.set(late.link(), "late", Condition::Held)?;
    let kept = path(&late)?;
    let releasing = tokio::spawn(first.release());
    eventually(LIMIT, "the release is held back", || kept.kept() > 0).await?;
    // What was held back first may have been a heartbeat.
    tokio::time::sleep(UNDISTURBED).await;
    scene.set(late.link(), "late", Condition::Clear)?;
    // The attempt is given up and repeated, for the same claim.
    releasing.await.because("the release")??;
    let again = late.lock(&lock, Mode::Exclusive).await?;
    deliver(&scene, &late).await?;
    let seen = other.client().inspect(&lock).await?;
    ensure!(
        seen.holders.len() == 1 && seen.holders[0].token == Some(again.token()?),
        "the late copy of a release has freed another claim: {}",
        crate::scene::described(&seen)
    );
    ensure!(
        other.try_lock(&lock, Mode::Exclusive).await?.is_none(),
        "a lock that is held was granted a second time"
    );
    again.release().await?;
    scene.until_free(other.client(), &lock, LIMIT).await
}

async fn lost_reply(scene: Scene) -> Verdict {
    let (lock, queue) = (scene.lock("reply"), scene.lock("queue"));
    let (client, other) = (
        scene.apart_client("client", TTL).await?,
        scene.client("other").await?,
    );
    // It knows the lock, so that it need not ask anything before it asks for it.
    client.lock(&lock, Mode::Exclusive).await?.release().await?;
    scene.set(client.link(), "client", Condition::CutFromStore)?;
    let asking = client.ask(&lock, Mode::Exclusive);
    let arrived = |lock: &LockSnapshot| !lock.holders.is_empty();
    let seen = scene
        .until(
            other.client(),
            &lock,
            LIMIT,
            "the request has arrived",
            arrived,
        )
        .await?;
    scene.set(client.link(), "client", Condition::Clear)?;
    let held = asking.granted(LIMIT).await?;
    ensure!(
        seen.holders[0].token == Some(held.token()?),
        "the store granted {:?}, and the client has {}",
        seen.holders[0].token,
        held.token()?
    );
    let seen = other.client().inspect(&lock).await?;
    ensure!(
        seen.holders.len() == 1 && seen.waiters.is_empty(),
        "one acquire made several claims: {seen:?}"
    );
    held.release().await?;
    scene.until_free(other.client(), &lock, LIMIT).await?;

    // The same for a place in the queue, behind another lock of its own.
    let theirs = client.lock(&queue, Mode::Exclusive).await?;
    scene.set(client.link(), "client", Condition::CutFromStore)?;
    let asking = client.ask(&queue, Mode::Exclusive);
    waiting(&scene, &other, &queue, 1).await?;
    scene.set(client.link(), "client", Condition::Clear)?;
    theirs.release().await?;
    let held = asking.granted(LIMIT).await?;
    let seen = other.client().inspect(&queue).await?;
    ensure!(
        seen.holders.len() == 1 && seen.waiters.is_empty(),
        "one acquire made several claims: {seen:?}"
    );
    held.release().await?;
    scene.until_free(other.client(), &queue, LIMIT).await
}

async fn slow_answers(scene: Scene) -> Verdict {
    // Of a lease that is long enough, it is a small part.
    const WAY: Duration = Duration::from_secs(1);
    let lock = scene.lock("slow");
    let (client, other) = (scene.client("client").await?, scene.client("other").await?);
    // It knows the lock, so that it need not ask anything before it asks for it.
    client.lock(&lock, Mode::Exclusive).await?.release().await?;
    let slow = Condition::Slow {
        to_store: Duration::ZERO,
        from_store: WAY,
    };
    scene.set(client.link(), "client", slow)?;
    let held = client.ask(&lock, Mode::Exclusive).granted(4 * WAY).await?;
    held.release().await?;
    scene.set(client.link(), "client", Condition::Clear)?;
    scene.until_free(other.client(), &lock, LIMIT).await
}

async fn reset_storm(scene: Scene) -> Verdict {
    const ACQUIRES: usize = 8;
    let lock = scene.lock("storm");
    let (client, other) = (
        scene.client_for("client", TTL).await?,
        scene.client("other").await?,
    );
    let storm = path(&client)?;
    scene
        .history()
        .note("network", "client's connections are reset");
    let storming = tokio::spawn(async move {
        loop {
            storm.set(Condition::Refused);
            tokio::time::sleep(Duration::from_millis(5)).await;
            storm.set(Condition::Clear);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(5..60))).await;
        }
    });
    let mut last = None;
    for _ in 0..ACQUIRES {
        // A session that could not be kept in such a network is lost, and that is told.
        let Ok(held) = client.acquire(&lock, Mode::Exclusive).await else {
            continue;
        };
        let (seen, token) = (other.client().inspect(&lock).await?, held.token()?);
        if held.is_held() {
            ensure!(
                seen.holders.len() == 1 && seen.waiters.is_empty(),
                "one acquire made several claims: {}",
                crate::scene::described(&seen)
            );
        }
        ensure!(last < Some(token), "token {token} after {last:?}");
        last = Some(token);
        // Not waited for: the next acquire comes behind it.
        drop(held);
    }
    storming.abort();
    // The storm may have ended while connections were refused.
    let _ = storming.await;
    scene.set(client.link(), "client", Condition::Clear)?;
    ensure!(last.is_some(), "nothing was granted: nothing was shown");
    let bound = scene.bound(client.ttl()).await?;
    scene.until_free(other.client(), &lock, bound).await
}
