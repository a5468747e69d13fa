//! WAKE: pushes make it fast, and nothing depends on them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock_core::Mode;

use super::fair::waiting;
use super::release::on_plain_thread;
use crate::case::{Case, Pace};
use crate::scene::{GRACE, LIMIT, LONG, PROMPT, Scene, eventually};
use crate::target::Condition;
use crate::wrap::{Deaf, Gossip};
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "WAKE/pushes-suppressed",
            "A waiter that no push reaches is granted within a few seconds of the release",
            deaf_release,
        )
        .pace(Pace::Timed),
        Case::new(
            "WAKE/pushes-suppressed-and-holder-crashed",
            "A waiter that no push reaches looks by itself when its blocker's lease could have run out",
            deaf_crash,
        )
        .pace(Pace::Timed),
        Case::new(
            "WAKE/false-hints",
            "Any number of false hints grants nothing, and a true grant is still seen",
            false_hints,
        ),
        Case::new(
            "WAKE/release-before-the-watch",
            "A release that comes as soon as a waiter has its place, however slow its network, is heard of",
            early_release,
        )
        .pace(Pace::Timed),
        Case::new(
            "WAKE/prompt-hand-over",
            "Two clients that take turns hand the lock over about as fast as one takes and releases it",
            prompt_hand_over,
        )
        .not_kept()
        .pace(Pace::Timed),
    ]
}

/// "At least every few seconds": what the library chooses, and the suite's grace.
const FEW_SECONDS: Duration = Duration::from_secs(5);

async fn deaf_release(scene: Scene) -> Verdict {
    let lock = scene.lock("deaf");
    let holder = scene.client("holder").await?;
    let deaf = scene
        .client_through("deaf", LONG, |inner| Arc::new(Deaf::new(inner)))
        .await?;
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let asking = deaf.ask(&lock, Mode::Exclusive);
    waiting(&scene, &holder, &lock, 1).await?;
    held.release().await?;
    let held = asking.granted(FEW_SECONDS + GRACE).await?;
    held.release().await
}

async fn early_release(scene: Scene) -> Verdict {
    /// What the waiter does after it has heard that it must wait reaches the store so much later.
    const WAY: Duration = Duration::from_millis(400);
    let lock = scene.lock("early");
    let (holder, waiter) = (scene.client("holder").await?, scene.client("waiter").await?);
    // It knows the lock, so that the first that it sends is the request.
    waiter.lock(&lock, Mode::Exclusive).await?.release().await?;
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let slow = Condition::Slow {
        to_store: WAY,
        from_store: Duration::ZERO,
    };
    scene.set(waiter.link(), "waiter", slow)?;
    let asking = waiter.ask(&lock, Mode::Exclusive);
    waiting(&scene, &holder, &lock, 1).await?;
    held.release().await?;
    // Before it looks by itself.
    let held = asking.granted(PROMPT - GRACE).await?;
    scene.set(waiter.link(), "waiter", Condition::Clear)?;
    held.release().await
}

async fn prompt_hand_over(scene: Scene) -> Verdict {
    const ROUNDS: usize = 15;
    /// What the waiter does to be told is done by then.
    const SETTLED: Duration = Duration::from_millis(20);
    /// Far less than any pause in which somebody could look again and again.
    const GRACE: Duration = Duration::from_millis(25);
    let (lock, alone) = (scene.lock("turns"), scene.lock("alone"));
    let (mut holder, mut waiter) = (scene.client("a").await?, scene.client("b").await?);
    let (mut turns, mut trips) = (Vec::new(), Vec::new());
    let mut held = holder.lock(&lock, Mode::Exclusive).await?;
    for _ in 0..ROUNDS {
        let asking = waiter.ask(&lock, Mode::Exclusive);
        waiting(&scene, &holder, &lock, 1).await?;
        tokio::time::sleep(SETTLED).await;
        let start = scene.history().now();
        held.release().await?;
        held = asking.granted(PROMPT).await?;
        turns.push(held.since().saturating_sub(start));
        std::mem::swap(&mut holder, &mut waiter);
    }
    held.release().await?;
    for _ in 0..ROUNDS {
        let start = scene.history().now();
        holder
            .lock(&alone, Mode::Exclusive)
            .await?
            .release()
            .await?;
        trips.push(scene.history().now() - start);
    }
    let (turn, trip) = (median(turns), median(trips));
    ensure!(
        turn < trip + GRACE,
        "a turn took {turn:?}, and to take and release a lock {trip:?}"
    );
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

async fn deaf_crash(scene: Scene) -> Verdict {
    let lock = scene.lock("deaf");
    let deaf = scene
        .client_through("deaf", LONG, |inner| Arc::new(Deaf::new(inner)))
        .await?;
    let observer = scene.client("observer").await?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (there, name) = (scene.clone(), lock.clone());
    let (holder, _guard) = runtime
        .spawn(async move {
            let holder = there.brief_client("holder").await?;
            let held = holder.lock(&name, Mode::Exclusive).await?;
            Verdict::Ok((holder, held.into_guard("is about to crash with")?))
        })
        .await??;
    let asking = deaf.ask(&lock, Mode::Exclusive);
    waiting(&scene, &observer, &lock, 1).await?;
    scene.history().note("holder", "crashes");
    let crash = scene.history().now();
    on_plain_thread(move || drop(runtime)).await?;
    let bound = scene.bound(holder.ttl()).await?;
    let held = asking.granted(bound + LIMIT).await?;
    let took = held.since().saturating_sub(crash);
    ensure!(
        took <= bound,
        "granted {took:?} after the crash, and not within {bound:?}"
    );
    held.release().await
}

async fn false_hints(scene: Scene) -> Verdict {
    let lock = scene.lock("gossip");
    let holder = scene.client("holder").await?;
    let gossip: Mutex<Option<Gossip>> = Mutex::default();
    let waiter = scene
        .client_through("waiter", LONG, |inner| {
            let wrapped = Gossip::new(inner);
            if let Ok(mut gossip) = gossip.lock() {
                *gossip = Some(wrapped.clone());
            }
            Arc::new(wrapped)
        })
        .await?;
    let gossip = gossip.into_inner().ok().flatten();
    let gossip = gossip.ok_or_else(|| Failure::new("the wrapper was not made"))?;
    for round in 0..3 {
        let held = holder.lock(&lock, Mode::Exclusive).await?;
        let (hints, looks) = (gossip.hints(), gossip.looks());
        let asking = waiter.ask(&lock, Mode::Exclusive);
        waiting(&scene, &holder, &lock, 1).await?;
        // Each hint makes it look, and each look says: wait.
        eventually(LIMIT, "hints are pushed, and the waiter looks", || {
            !asking.is_pending() || (gossip.hints() > hints + 20 && gossip.looks() > looks + 5)
        })
        .await?;
        ensure!(
            asking.is_pending(),
            "round {round}: a hint was taken for a grant"
        );
        ensure!(held.is_held(), "the holder lost its lock");
        held.release().await?;
        let held = asking.granted(PROMPT).await?;
        let seen = holder.client().inspect(&lock).await?;
        ensure!(
            seen.holders.len() == 1 && seen.holders[0].token == Some(held.token()?),
            "it was granted token {}, and the store shows {seen:?}",
            held.token()?
        );
        held.release().await?;
    }
    Ok(())
}
