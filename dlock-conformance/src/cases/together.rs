//! The tasks of one process: they pass claims on, share them and keep them, and all rules hold all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dlock_core::Mode;
use tokio::task::JoinHandle;

use super::costs::Reading;
use super::fair::waiting;
use crate::actor::Actor;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, PROMPT, Scene, eventually, within};
use crate::target::Need;
use crate::{Context, Verdict, ensure};

/// The longest that claims can be kept: a process that gives one back gives it back earlier.
const KEEP: Duration = Duration::from_secs(1);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "FENCE/handed-over",
            "Tasks of one process that pass a lock on are never inside together, and tokens rise",
            handed_over,
        ),
        Case::new(
            "FAIR/hand-over-is-bounded",
            "A process whose tasks pass a lock on gives it back when another session waits",
            bounded,
        )
        .pace(Pace::Timed),
        Case::new(
            "FAIR/shared-not-past-a-writer",
            "A reader does not join a reader of its process past a writer that waits, of whatever process",
            not_past_a_writer,
        ),
        Case::new(
            "FAIR/kept-is-given-back",
            "A claim that is kept stands in nobody's way, in its own process or in another",
            given_back,
        ),
        Case::new(
            "CANCEL/handed-over-to-a-dropped",
            "A lock that is passed on to a task that gives up at that moment goes on to the next one",
            to_a_dropped,
        ),
        Case::new(
            "COSTS/one-place",
            "The tasks of one process that wait for one lock have one place in the store",
            one_place,
        ),
        Case::new(
            "COSTS/from-memory",
            "Passing on, sharing, taking a kept claim again, and a try on a lock of one's own cost the \
             store nothing",
            from_memory,
        )
        .needs(Need::Meter)
        .pace(Pace::Alone),
        Case::new(
            "HONEST/kept-is-shown",
            "A claim that is kept is shown as kept to the client that keeps it",
            shown,
        ),
    ]
}

async fn client(scene: &Scene, who: &str) -> Verdict<Actor> {
    scene.keeping_client(who, Duration::ZERO).await
}

/// What is certain about the holds, the history's own rules check.
async fn handed_over(scene: Scene) -> Verdict {
    const TASKS: usize = 8;
    const TURNS: usize = 10;
    let lock = scene.lock("handed-over");
    let client = client(&scene, "client").await?;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (client, lock) = (client.clone(), lock.clone());
            tokio::spawn(async move {
                for turn in 0..TURNS {
                    let held = client.lock(&lock, Mode::Exclusive).await?;
                    tokio::task::yield_now().await;
                    ensure!(held.is_held(), "lost without a reason");
                    if (task + turn) % 2 == 0 {
                        held.release().await?;
                    }
                }
                Verdict::Ok(())
            })
        })
        .collect();
    ended(tasks).await?;
    scene.until_free(client.client(), &lock, LIMIT).await
}

async fn bounded(scene: Scene) -> Verdict {
    const TASKS: usize = 4;
    /// As often as a claim may be passed on when others wait, once more to each task that had asked before,
    /// and the one who holds it then.
    const MOST: usize = 64 + TASKS + 1;
    let lock = scene.lock("bounded");
    let (busy, other) = (
        client(&scene, "busy").await?,
        client(&scene, "other").await?,
    );
    let (over, since) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (client, lock) = (busy.client().clone(), lock.clone());
            let (over, since) = (Arc::clone(&over), Arc::clone(&since));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let guard = client.lock(&lock).await?;
                    tokio::task::yield_now().await;
                    // Whether others wait was known when this one was granted, at the latest.
                    if guard.is_contended() {
                        since.fetch_add(1, Ordering::Relaxed);
                    } else {
                        since.store(0, Ordering::Relaxed);
                    }
                }
                Verdict::Ok(())
            })
        })
        .collect();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        since.store(0, Ordering::Relaxed);
        // Not recorded, since the others' holds are not either.
        let asking = other.client().lock(&lock).timeout(PROMPT);
        let guard = asking.await.because("another session's turn")?;
        let passed = since.load(Ordering::Relaxed);
        scene
            .history()
            .note("busy", format!("{passed} grants after it was contended"));
        ensure!(
            passed <= MOST,
            "passed on {passed} times while another waits"
        );
        guard.release().await?;
    }
    over.store(true, Ordering::Relaxed);
    ended(tasks).await
}

async fn not_past_a_writer(scene: Scene) -> Verdict {
    let (lock, local) = (scene.lock("writer"), scene.lock("local-writer"));
    let (one, other) = (client(&scene, "one").await?, client(&scene, "other").await?);
    let read = Mode::ProtectedRead;

    let first = one.lock(&local, read).await?;
    let writer = one.ask(&local, Mode::Exclusive);
    waiting(&scene, &other, &local, 1).await?;
    let second = one.ask(&local, read);
    waiting(&scene, &other, &local, 2).await?;
    ensure!(
        one.try_lock(&local, read).await?.is_none(),
        "a try goes past a writer of its process"
    );
    first.release().await?;
    let written = writer.granted(LIMIT).await?;
    ensure!(second.is_pending(), "a reader beside a writer");
    written.release().await?;
    second.granted(LIMIT).await?.release().await?;

    let first = one.lock(&lock, read).await?;
    let second = one.lock(&lock, read).await?;
    let writer = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    // The news may take a moment; a store that tells of nobody has requests queue in any case.
    let guard = first.guard()?;
    let told = eventually(Duration::from_millis(500), "told", || guard.is_contended()).await;
    let third = one.ask(&lock, read);
    waiting(&scene, &other, &lock, 2).await.because(format!(
        "behind the writer (the holder is told: {})",
        told.is_ok()
    ))?;
    first.release().await?;
    second.release().await?;
    let written = writer.granted(LIMIT).await?;
    ensure!(third.is_pending(), "a reader beside a writer");
    written.release().await?;
    third.granted(LIMIT).await?.release().await
}

async fn given_back(scene: Scene) -> Verdict {
    let lock = scene.lock("kept");
    let one = scene.keeping_client("one", KEEP).await?;
    let other = client(&scene, "other").await?;
    for wait in [true, false] {
        one.lock(&lock, Mode::Exclusive).await?.release().await?;
        // A task of its own that needs another mode.
        let reader = match wait {
            true => Some(one.lock(&lock, Mode::ProtectedRead).await?),
            false => one.try_lock(&lock, Mode::ProtectedRead).await?,
        };
        let Some(reader) = reader else {
            return Err(crate::Failure::new("a try is refused for a kept claim"));
        };
        reader.release().await?;
    }
    one.lock(&lock, Mode::Exclusive).await?.release().await?;
    other.lock(&lock, Mode::Exclusive).await?.release().await?;
    one.lock(&lock, Mode::Exclusive).await?.release().await?;
    scene.until_free(other.client(), &lock, LIMIT).await
}

async fn to_a_dropped(scene: Scene) -> Verdict {
    let lock = scene.lock("dropped");
    let client = client(&scene, "client").await?;
    for round in 0..50u32 {
        let held = client.lock(&lock, Mode::Exclusive).await?;
        let given_up = client.ask(&lock, Mode::Exclusive);
        tokio::task::yield_now().await;
        let next = client.ask(&lock, Mode::Exclusive);
        tokio::task::yield_now().await;
        let dropping = tokio::spawn(async move {
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            drop(given_up);
        });
        drop(held);
        next.granted(LIMIT).await?.release().await?;
        dropping.await?;
    }
    scene.until_free(client.client(), &lock, LIMIT).await
}

async fn one_place(scene: Scene) -> Verdict {
    let lock = scene.lock("place");
    let (holder, many) = (
        client(&scene, "holder").await?,
        client(&scene, "many").await?,
    );
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let tasks = take_turns(&many, &lock, 20);
    waiting(&scene, &holder, &lock, 1).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    waiting(&scene, &holder, &lock, 1)
        .await
        .because("all of them have one place")?;
    held.release().await?;
    ended(tasks).await?;
    scene.until_free(holder.client(), &lock, LIMIT).await
}

/// Tasks of this client that take the lock once each.
fn take_turns(client: &Actor, lock: &str, tasks: usize) -> Vec<JoinHandle<Verdict>> {
    let take = |_| {
        let (client, lock) = (client.clone(), lock.to_owned());
        tokio::spawn(async move { client.lock(&lock, Mode::Exclusive).await?.release().await })
    };
    (0..tasks).map(take).collect()
}

async fn ended(tasks: Vec<JoinHandle<Verdict>>) -> Verdict {
    for task in tasks {
        within(LIMIT, "the tasks come to their end", task).await???;
    }
    Ok(())
}

async fn from_memory(scene: Scene) -> Verdict {
    let (lock, shared) = (scene.lock("lock"), scene.lock("shared"));
    let one = client(&scene, "one").await?;
    let held = one.lock(&lock, Mode::Exclusive).await?;
    let reader = one.lock(&shared, Mode::ProtectedRead).await?;
    // What a store has to be asked before it tells of others is asked once for each claim. Until it has
    // answered, the second reader has a claim of its own.
    let mut tasks = take_turns(&one, &lock, 1);
    let second_reader = one.lock(&shared, Mode::ProtectedRead).await?;
    let third_reader = one.lock(&shared, Mode::ProtectedRead).await?;
    third_reader.release().await?;
    let mut reading = Reading::begin(&scene).await?;
    tasks.extend(take_turns(&one, &lock, 10));
    for _ in 0..5 {
        ensure!(
            one.try_lock(&lock, Mode::ProtectedRead).await?.is_none(),
            "a try beside a holder"
        );
        one.lock(&shared, Mode::ProtectedRead)
            .await?
            .release()
            .await?;
    }
    let done = reading.quiet().await?;
    ensure!(
        (done.requests, done.pushes) == (0, 0),
        "while one task holds it, and others of its process want it: {done:?}"
    );
    held.release().await?;
    ended(tasks).await?;
    let done = reading.quiet().await?.requests;
    // A place that was taken before the store told of others goes with it. It is behind a claim of its own
    // session, so a store may have to be asked whether its turn has come.
    let most = 2 * reading.prices().release + reading.prices().take_over_in_a_queue;
    ensure!(done <= most, "{done} requests for eleven tasks, not {most}");
    reader.release().await?;
    second_reader.release().await?;
    reading.quiet().await?;

    let keeping = scene.keeping_client("keeping", KEEP).await?;
    let kept = scene.lock("kept");
    keeping
        .lock(&kept, Mode::Exclusive)
        .await?
        .release()
        .await?;
    let first = reading.quiet().await?.requests;
    for _ in 0..20 {
        keeping
            .lock(&kept, Mode::Exclusive)
            .await?
            .release()
            .await?;
    }
    let again = reading.quiet().await?.requests;
    ensure!(
        again <= first.max(3),
        "twenty times the same lock: {again} requests, and {first} for the first time"
    );
    Ok(())
}

async fn shown(scene: Scene) -> Verdict {
    let lock = scene.lock("shown");
    let one = scene.keeping_client("one", KEEP).await?;
    let held = one.lock(&lock, Mode::Exclusive).await?;
    let kept = async |expected: bool| {
        let seen = one.client().inspect(&lock).await?;
        // A busy machine may take longer to look than claims are kept.
        let as_expected = seen.holders.iter().all(|holder| holder.kept == expected);
        ensure!(as_expected, "kept: {:?}, and not {expected}", seen.holders);
        Verdict::Ok(())
    };
    kept(false).await?;
    held.release().await?;
    kept(true).await?;
    let again = one.lock(&lock, Mode::Exclusive).await?;
    kept(false).await?;
    again.release().await
}
