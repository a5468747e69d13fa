//! The contract's table of costs: what must not grow.

use std::collections::VecDeque;
use std::time::Duration;

use dlock_core::{Guard, Mode};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::fair::waiting;
use crate::actor::Actor;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, LONG, PROMPT, Scene, within};
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
    let one = client.client().lock(scene.lock("one")).await?;
    heartbeats(&scene, &client, 1).await?;
    let mut held = vec![one];
    let names: Vec<String> = (0..LOCKS)
        .map(|number| scene.lock(&format!("m{number}")))
        .collect();
    for some in names.chunks(50) {
        // Not through the actor: a thousand locks would fill the history.
        let asked = some
            .iter()
            .map(|name| client.client().lock(name).into_future());
        let mut asked: FuturesUnordered<_> = asked.collect();
        while let Some(lock) = asked.next().await {
            held.push(lock?);
        }
    }
    heartbeats(&scene, &client, held.len()).await?;
    ensure!(held.iter().all(Guard::is_held), "a lock was lost meanwhile");
    // Not left to lapse: the store would be at work on a thousand claims while others count.
    within(LIMIT, "close", client.client().close(LIMIT)).await??;
    Ok(())
}

/// Counts the requests that the store received while nobody asked for anything, and checks that they
/// are one heartbeat every third of the TTL. Of three such windows one must be so: in the others the
/// client may have tidied up after sessions that earlier cases have left to lapse.
async fn heartbeats(scene: &Scene, client: &Actor, locks: usize) -> Verdict {
    let meter = scene.target().meter()?;
    let mut seen = String::new();
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let before = meter.read().await?;
        tokio::time::sleep(2 * client.ttl()).await;
        let count = (meter.read().await? - before).requests;
        let thirds = start.elapsed().as_secs_f64() / (client.ttl() / 3).as_secs_f64();
        seen = format!("{count} heartbeats with {locks} locks in {thirds:.2} thirds of the TTL");
        scene.history().note("store", &*seen);
        // A renewal comes up to a tenth early, so that clients spread; where the window begins and
        // ends makes a difference of one; and a backend may tidy up now and then.
        let most = (thirds * 1.12 + 2.0) * meter.prices().heartbeat as f64;
        ensure!(count >= 2, "{seen}");
        if count as f64 <= most {
            return Ok(());
        }
    }
    Err(Failure::new(seen))
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

/// The steps inside the store for one release that hands the lock over: the fewest of several,
/// because waiters look by themselves now and then, and the store may do something else meanwhile.
async fn hand_over(scene: &Scene, waiters: usize) -> Verdict<u64> {
    const TIMES: usize = 5;
    let lock = scene.lock(&format!("work{waiters}"));
    let holder = scene.client("holder").await?;
    let mut held = holder.lock(&lock, Mode::Exclusive).await?;
    let link = scene.link().await?;
    let mut queue = VecDeque::new();
    for number in 0..waiters + TIMES - 1 {
        let who = format!("w{number}");
        let client = scene.client_over(&who, LONG, link.clone()).await?;
        queue.push_back(client.ask(&lock, Mode::Exclusive));
        waiting(scene, &holder, &lock, number + 1).await?;
    }
    let meter = scene.target().meter()?;
    let mut fewest = u64::MAX;
    for _ in 0..TIMES {
        let Some(next) = queue.pop_front() else { break };
        let before = meter.read().await?;
        held.release().await?;
        held = next.granted(PROMPT).await?;
        let steps = (meter.read().await? - before).steps;
        let steps = steps.ok_or_else(|| Failure::new("the store does not count its steps"))?;
        fewest = fewest.min(steps);
    }
    drop(queue);
    held.release().await?;
    scene.until_free(holder.client(), &lock, LIMIT).await?;
    Ok(fewest)
}
