//! CANCEL: each future dropped at every await point that it has.
//!
//! A future is polled once, dropped, and what is left in the store is looked at; then another one is
//! polled twice, and so on, until one is ready, or one is no longer woken because it waits for
//! somebody else.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use dlock_core::Mode;

use super::fair::waiting;
use crate::case::Case;
use crate::scene::{LIMIT, Scene};
use crate::target::Condition;
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "CANCEL/every-await/free",
            "An acquire of a free lock leaves nothing, whichever await it is dropped at",
            free,
        ),
        Case::new(
            "CANCEL/every-await/held",
            "An acquire that has to wait leaves nothing, whichever await it is dropped at",
            held,
        ),
        Case::new(
            "CANCEL/every-await/try",
            "A try leaves nothing, whichever await it is dropped at",
            tries,
        ),
        Case::new(
            "CANCEL/every-await/release",
            "A release frees the lock, whichever await it is dropped at",
            release,
        ),
    ]
}

/// More await points than any of these futures has.
const ENOUGH: usize = 200;

/// How long a future that is not woken is waited for, before it counts as waiting for somebody else.
const IDLE: Duration = Duration::from_millis(250);

enum Polled<T> {
    /// It is done.
    Ready(T),
    /// It has been polled so many times, and is not done.
    Enough,
    /// It is not done, and nobody wakes it.
    Idle,
}

async fn poll_times<F: Future>(mut future: Pin<&mut F>, times: usize) -> Polled<F::Output> {
    let mut polls = 0;
    let polling = poll_fn(|context| {
        if polls == times {
            return Poll::Ready(Polled::Enough);
        }
        polls += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Polled::Ready(output)),
            Poll::Pending if polls == times => Poll::Ready(Polled::Enough),
            Poll::Pending => Poll::Pending,
        }
    });
    tokio::time::timeout(IDLE, polling)
        .await
        .unwrap_or(Polled::Idle)
}

/// Slow enough that an answer is not there when it is first asked for.
fn slow(scene: &Scene, client: &crate::actor::Actor) -> Verdict {
    let way = Duration::from_millis(3);
    let slow = Condition::Slow {
        to_store: way,
        from_store: way,
    };
    scene.set(client.link(), client.who(), slow)
}

async fn free(scene: Scene) -> Verdict {
    let lock = scene.lock("free");
    let (dropper, other) = (scene.client("dropper").await?, scene.client("other").await?);
    slow(&scene, &dropper)?;
    for times in 0..ENOUGH {
        let done = {
            let acquire = pin!(dropper.acquire(&lock, Mode::Exclusive));
            match poll_times(acquire, times).await {
                Polled::Ready(held) => Some(held?),
                Polled::Enough => None,
                Polled::Idle => {
                    return Err(crate::Failure::new(
                        "an acquire of a free lock is not woken",
                    ));
                }
            }
        };
        scene
            .history()
            .note("dropper", format!("dropped it after {times} polls"));
        if let Some(held) = done {
            return held.release().await;
        }
        scene.until_free(other.client(), &lock, LIMIT).await?;
        other.lock(&lock, Mode::Exclusive).await?.release().await?;
    }
    Err(crate::Failure::new("the acquire has no end"))
}

async fn held(scene: Scene) -> Verdict {
    let lock = scene.lock("held");
    let (dropper, other) = (scene.client("dropper").await?, scene.client("other").await?);
    slow(&scene, &dropper)?;
    let held = other.lock(&lock, Mode::Exclusive).await?;
    for times in 0..ENOUGH {
        let idle = {
            let acquire = pin!(dropper.acquire(&lock, Mode::Exclusive));
            match poll_times(acquire, times).await {
                Polled::Ready(_) => return Err(crate::Failure::new("granted beside the holder")),
                Polled::Enough => false,
                Polled::Idle => {
                    // It has its place in the queue, and waits.
                    waiting(&scene, &other, &lock, 1).await?;
                    true
                }
            }
        };
        scene
            .history()
            .note("dropper", format!("dropped it after {times} polls"));
        waiting(&scene, &other, &lock, 0).await?;
        if idle {
            held.release().await?;
            return dropper.lock(&lock, Mode::Exclusive).await?.release().await;
        }
    }
    Err(crate::Failure::new("the acquire has no end"))
}

async fn tries(scene: Scene) -> Verdict {
    let (free, taken) = (scene.lock("free"), scene.lock("taken"));
    let (dropper, other) = (scene.client("dropper").await?, scene.client("other").await?);
    slow(&scene, &dropper)?;
    let held = other.lock(&taken, Mode::Exclusive).await?;
    for lock in [&free, &taken] {
        for times in 0..ENOUGH {
            let done = {
                let tried = pin!(dropper.try_lock(lock, Mode::Exclusive));
                match poll_times(tried, times).await {
                    Polled::Ready(result) => Some(result?),
                    Polled::Enough => None,
                    Polled::Idle => return Err(crate::Failure::new("a try is not woken")),
                }
            };
            scene
                .history()
                .note("dropper", format!("dropped it after {times} polls"));
            if let Some(result) = done {
                ensure!(
                    result.is_some() == (lock == &free),
                    "the try on {lock:?} is wrong"
                );
                break;
            }
            if lock == &free {
                scene.until_free(other.client(), lock, LIMIT).await?;
            } else {
                waiting(&scene, &other, lock, 0).await?;
            }
        }
    }
    held.release().await
}

async fn release(scene: Scene) -> Verdict {
    let lock = scene.lock("released");
    let (dropper, other) = (scene.client("dropper").await?, scene.client("other").await?);
    slow(&scene, &dropper)?;
    for times in 0..ENOUGH {
        let held = dropper.lock(&lock, Mode::Exclusive).await?;
        let done = {
            let release = pin!(held.into_guard("releases")?.release());
            match poll_times(release, times).await {
                Polled::Ready(result) => {
                    result?;
                    true
                }
                Polled::Enough => false,
                Polled::Idle => return Err(crate::Failure::new("a release is not woken")),
            }
        };
        scene
            .history()
            .note("dropper", format!("dropped it after {times} polls"));
        scene.until_free(other.client(), &lock, LIMIT).await?;
        other.lock(&lock, Mode::Exclusive).await?.release().await?;
        if done {
            return Ok(());
        }
    }
    Err(crate::Failure::new("the release has no end"))
}
