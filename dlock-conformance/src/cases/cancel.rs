//! CANCEL: what is dropped leaves nothing behind: by time, without a network, without a runtime.

use std::sync::Arc;
use std::time::Duration;

use dlock_core::{Client, LockSnapshot, Mode, Ttl};

use super::fair::waiting;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, PROMPT, SHORT, Scene, within};
use crate::target::{Condition, Link};
use crate::{Context, Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "CANCEL/slow-store/free",
            "An acquire of a free lock, dropped at any time while a slow store answers, leaves nothing",
            |scene| slow(scene, Beside::Nobody),
        ),
        Case::new(
            "CANCEL/slow-store/held",
            "An acquire that waits, dropped at any time while a slow store answers, leaves nothing",
            |scene| slow(scene, Beside::Holder),
        ),
        Case::new(
            "CANCEL/slow-store/hand-over",
            "An acquire dropped at any time around its grant leaves nothing held without a guard",
            |scene| slow(scene, Beside::LeavingHolder),
        ),
        Case::new(
            "CANCEL/unreachable-store",
            "An acquire dropped while the store cannot be reached leaves nothing after one TTL",
            unreachable,
        )
        .not_kept()
        .pace(Pace::Timed),
        Case::new(
            "CANCEL/no-task-is-left",
            "After acquires, drops, a time-out and the client's end no task of the library runs on",
            no_task_is_left,
        )
        .pace(Pace::Timed),
    ]
}

/// Who else has to do with the lock whose acquire is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nobody,
    Holder,
    LeavingHolder,
}

async fn slow(scene: Scene, beside: Beside) -> Verdict {
    const STEP: Duration = Duration::from_millis(7);
    let way = Duration::from_millis(15);
    let lock = scene.lock("slow");
    let (dropper, other) = (scene.client("dropper").await?, scene.client("other").await?);
    let slow = Condition::Slow {
        to_store: way,
        from_store: way,
    };
    scene.set(dropper.link(), "dropper", slow)?;
    for step in 0..14 {
        let mut held = None;
        if beside != Beside::Nobody {
            held = Some(other.lock(&lock, Mode::Exclusive).await?);
        }
        let mut acquire = Box::pin(dropper.acquire(&lock, Mode::Exclusive));
        if beside == Beside::LeavingHolder {
            // It has its place in the queue; then the time counts from the holder's release.
            let queued = waiting(&scene, &other, &lock, 1);
            tokio::select! {
                _ = &mut acquire => return Err(Failure::new("granted beside the holder")),
                queued = queued => queued?,
            }
            drop(held.take());
        }
        // The time at which it is dropped is the case's stimulus, not a wait for anything.
        let result = tokio::time::timeout(STEP * step, &mut acquire).await;
        if let Ok(granted) = result {
            drop(granted?);
        } else {
            scene.history().note(
                "dropper",
                format!("drops its acquire after {:?}", STEP * step),
            );
        }
        // It must be gone well before the lease lapses: taken out, not timed out.
        drop(acquire);
        match held {
            Some(held) => {
                waiting(&scene, &other, &lock, 0).await?;
                held.release().await?;
            }
            None => scene.until_free(other.client(), &lock, LIMIT).await?,
        }
    }
    // And the dropper is none the worse for it.
    dropper.lock(&lock, Mode::Exclusive).await?.release().await
}

async fn unreachable(scene: Scene) -> Verdict {
    let lock = scene.lock("unreachable");
    let (dropper, other) = (
        scene.brief_client("dropper").await?,
        scene.client("other").await?,
    );
    // It knows the lock, so that it need not ask anything before it asks for it.
    dropper
        .lock(&lock, Mode::Exclusive)
        .await?
        .release()
        .await?;
    // The request arrives, its answer does not; and then nothing more does.
    scene.set(dropper.link(), "dropper", Condition::CutFromStore)?;
    let asking = dropper.ask(&lock, Mode::Exclusive);
    let arrived = |lock: &LockSnapshot| lock.holders.len() == 1;
    scene
        .until(
            other.client(),
            &lock,
            LIMIT,
            "the request has arrived",
            arrived,
        )
        .await?;
    ensure!(
        asking.is_pending(),
        "an acquire returned whose answer was lost"
    );
    scene.set(dropper.link(), "dropper", Condition::Cut)?;
    let cut = scene.history().now();
    scene.history().note("dropper", "drops its acquire");
    drop(asking);
    let bound = scene.bound(dropper.ttl()).await?;
    let held = other
        .ask(&lock, Mode::Exclusive)
        .granted(bound + LIMIT)
        .await?;
    let took = scene.history().now() - cut;
    ensure!(
        took <= bound,
        "free after {took:?}, and not within {bound:?}"
    );
    held.release().await
}

async fn no_task_is_left(scene: Scene) -> Verdict {
    // In a runtime that nothing else uses, so that its tasks are the library's.
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(use_and_drop(&scene))?;
        let tasks = runtime.handle().metrics();
        let end = std::time::Instant::now() + PROMPT;
        while tasks.num_alive_tasks() > 0 {
            ensure!(
                std::time::Instant::now() < end,
                "{} tasks run on after {PROMPT:?}",
                tasks.num_alive_tasks()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })
    .await?
}

async fn use_and_drop(scene: &Scene) -> Verdict {
    let lock = scene.lock("tasks");
    // The suite's own network ends with the links, at the end of this function.
    let links = [scene.target().link().await?, scene.target().link().await?];
    let connect = async |link: &Link| -> Verdict<Client> {
        let backend = Arc::clone(&link.backend);
        let ttl = Ttl::new(SHORT.max(backend.capabilities().min_ttl))?;
        Ok(Client::builder(backend).ttl(ttl).connect().await?)
    };
    let (client, other) = (connect(&links[0]).await?, connect(&links[1]).await?);
    let held = within(LIMIT, "a lock", client.lock(&lock))
        .await?
        .because("a lock")?;
    let soon = other.lock(&lock).timeout(Duration::from_millis(50)).await;
    ensure!(soon.is_err(), "granted beside the holder");
    let dropped = tokio::time::timeout(Duration::from_millis(50), other.lock(&lock)).await;
    ensure!(dropped.is_err(), "granted beside the holder");
    drop(held);
    let guard = within(LIMIT, "the dropped lock", other.lock(&lock)).await?;
    guard.because("the dropped lock")?.release().await?;
    other.close(LIMIT).await?;
    // What it does in the background ends with its lease at the latest: the link goes, too.
    drop(client);
    Ok(())
}
