//! The contract's table of costs: what must not grow.

use std::time::Duration;

use dlock_core::Mode;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::costs::Reading;
use super::fair::waiting;
use crate::actor::{Actor, Held};
use crate::case::{Case, Pace};
use crate::scene::{LONG, PROMPT, Scene};
use crate::target::Need;
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "COSTS/heartbeat",
            "Keeping a thousand locks alive costs as many heartbeats as keeping one",
            heartbeat,
        )
        .needs(Need::Meter)
        .pace(Pace::Alone),
        Case::new(
            "COSTS/work-in-the-queue's-length",
            "What a hand-over makes the store do does not grow with the number of waiters",
            work,
        )
        .needs(Need::Steps)
        .pace(Pace::Alone),
    ]
}

const LOCKS: usize = 1000;
/// Three heartbeats a TTL.
const TTL: Duration = Duration::from_millis(1500);

async fn heartbeat(scene: Scene) -> Verdict {
    let client = scene.client_for("client", TTL).await?;
    let one = client.lock(&scene.lock("one"), Mode::Exclusive).await?;
    let with_one = heartbeats(&scene, &client).await?;
    let mut held = vec![one];
    let names: Vec<String> = (0..LOCKS)
        .map(|number| scene.lock(&format!("m{number}")))
        .collect();
    for some in names.chunks(50) {
        let mut asked: FuturesUnordered<_> = some
            .iter()
            .map(|name| client.lock(name, Mode::Exclusive))
            .collect();
        while let Some(lock) = asked.next().await {
            held.push(lock?);
        }
    }
    let with_many = heartbeats(&scene, &client).await?;
    scene.history().note(
        "store",
        format!("heartbeats: {with_one} with one lock, {with_many} with {LOCKS} more"),
    );
    let price = scene.target().meter()?.prices().heartbeat;
    ensure!(with_one > 0, "no heartbeat was seen");
    // Where a window of time begins and ends makes a difference of one.
    ensure!(
        with_many <= (with_one + 1) * price,
        "{with_many} heartbeats with {LOCKS} locks, {with_one} with one, in the same time"
    );
    ensure!(held.iter().all(Held::is_held), "a lock was lost meanwhile");
    Ok(())
}

/// How many requests the store received while nobody asked for anything.
async fn heartbeats(scene: &Scene, client: &Actor) -> Verdict<u64> {
    let meter = scene.target().meter()?;
    let before = meter.read().await?;
    tokio::time::sleep(2 * client.ttl()).await;
    Ok((meter.read().await? - before).requests)
}

async fn work(scene: Scene) -> Verdict {
    let few = hand_over(&scene, 2).await?;
    let many = hand_over(&scene, 60).await?;
    scene.history().note(
        "store",
        format!("steps of a hand-over: {few} with 2 waiters, {many} with 60"),
    );
    ensure!(
        many <= few + 5,
        "a hand-over takes {few} steps with 2 waiters, and {many} with 60"
    );
    Ok(())
}

/// The steps inside the store for one release that hands the lock over.
async fn hand_over(scene: &Scene, waiters: usize) -> Verdict<u64> {
    let lock = scene.lock(&format!("work{waiters}"));
    let holder = scene.client("holder").await?;
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let link = scene.link().await?;
    let mut asking = Vec::new();
    for number in 0..waiters {
        let client = scene
            .client_over(&format!("w{number}"), LONG, link.clone())
            .await?;
        asking.push(client.ask(&lock, Mode::Exclusive));
        waiting(scene, &holder, &lock, number + 1).await?;
    }
    let mut reading = Reading::begin(scene).await?;
    held.release().await?;
    let next = asking.remove(0).granted(PROMPT).await?;
    let done = reading.quiet().await?;
    let last = asking.pop();
    drop((asking, last));
    next.release().await?;
    done.steps
        .ok_or_else(|| Failure::new("the store does not count its steps"))
}
