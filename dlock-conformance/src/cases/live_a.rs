//! LIVE-A: what a crashed client held or waited for is freed within its TTL and the store's slack.
//!
//! Here a crash is the end of the client's runtime: nothing of it runs from one moment to the next,
//! and nothing is cleaned up. [`live_a_process`](super::live_a_process) does it to real processes.

use std::time::Duration;

use dlock_core::Mode;
use tokio::runtime::Runtime;

use super::fair::waiting;
use super::release::on_plain_thread;
use crate::actor::{Asking, Held};
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, Scene};
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "LIVE-A/crashed-holder",
            "A holder whose runtime ends without a word loses its lock, and the next waiter gets it",
            crashed_holder,
        )
        .pace(Pace::Timed),
        Case::new(
            "LIVE-A/crashed-waiter",
            "A waiter that crashed holds up those behind it no longer than a crashed holder would",
            crashed_waiter,
        )
        .pace(Pace::Timed),
        Case::new(
            "LIVE-A/crashed-waiter-behind-another",
            "The same for one that crashed behind another waiter, who came and went meanwhile",
            crashed_waiter_behind_another,
        )
        .pace(Pace::Timed),
        Case::new(
            "LIVE-A/several-crash-together",
            "A holder and the three first waiters crash together: it costs one wait, not four",
            several,
        )
        .pace(Pace::Timed),
    ]
}

/// Clients in a runtime that can end in the middle of everything. `None` once it has.
pub(super) struct Crashing(Option<Runtime>);

impl Crashing {
    pub(super) fn new() -> Verdict<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Verdict<T>> + Send + 'static,
    ) -> Verdict<T> {
        let runtime = self.0.as_ref();
        let runtime = runtime.ok_or_else(|| Failure::new("it has crashed"))?;
        runtime.spawn(work).await?
    }

    /// Ends it. Returns when it did.
    pub(super) async fn crash(mut self, scene: &Scene, who: &str) -> Verdict<Duration> {
        let history = scene.history().clone();
        let (who, runtime) = (who.to_owned(), self.0.take());
        on_plain_thread(move || {
            history.note(who, "crashes");
            let now = history.now();
            drop(runtime);
            now
        })
        .await
    }
}

/// A case that fails before the crash drops it where a runtime may not be waited for; the panic would hide
/// why the case failed.
impl Drop for Crashing {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for the grant, and checks that it came in time after the crash (or what is like one).
pub(super) async fn granted_after(
    scene: &Scene,
    asking: Asking,
    crash: Duration,
    ttl: Duration,
) -> Verdict<Held> {
    let bound = scene.bound(ttl).await?;
    let held = asking.granted(bound + LIMIT).await?;
    let took = scene.history().now() - crash;
    ensure!(
        took <= bound,
        "granted {took:?} after the crash, and not within {bound:?}"
    );
    Ok(held)
}

async fn crashed_holder(scene: Scene) -> Verdict {
    let lock = scene.lock("holder");
    let other = scene.client("other").await?;
    let crashing = Crashing::new()?;
    let (there, name) = (scene.clone(), lock.clone());
    let (holder, guard) = crashing
        .run(async move {
            let holder = there.brief_client("holder").await?;
            let held = holder.lock(&name, Mode::Exclusive).await?;
            Ok((holder, held.into_guard("is about to crash with")?))
        })
        .await?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    // Not in its first lease: it has renewed.
    let renewed = guard.remaining();
    crate::scene::eventually(LIMIT, "the holder renews its lease", || {
        guard.remaining() > renewed
    })
    .await?;
    let crash = crashing.crash(&scene, "holder").await?;
    let held = granted_after(&scene, asking, crash, holder.ttl()).await?;
    held.release().await
}

async fn crashed_waiter(scene: Scene) -> Verdict {
    let lock = scene.lock("waiter");
    let holder = scene.client("holder").await?;
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let (asking, ttl, crash) = waiter_crashes(&scene, &lock, 0).await?;
    // While it still counts as alive, the lock is handed to it.
    held.release().await?;
    let held = granted_after(&scene, asking, crash, ttl).await?;
    held.release().await
}

async fn crashed_waiter_behind_another(scene: Scene) -> Verdict {
    let lock = scene.lock("middle");
    let (holder, first) = (scene.client("holder").await?, scene.client("first").await?);
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let came = first.ask(&lock, Mode::Exclusive);
    waiting(&scene, &holder, &lock, 1).await?;
    let (asking, ttl, crash) = waiter_crashes(&scene, &lock, 1).await?;
    held.release().await?;
    came.granted(LIMIT).await?.release().await?;
    let held = granted_after(&scene, asking, crash, ttl).await?;
    held.release().await
}

/// Behind `ahead` waiters another one comes and crashes, after somebody has come behind it. Returns
/// that one's request, the crashed one's TTL, and when it crashed.
async fn waiter_crashes(
    scene: &Scene,
    lock: &str,
    ahead: usize,
) -> Verdict<(Asking, Duration, Duration)> {
    let other = scene.client("other").await?;
    let crashing = Crashing::new()?;
    let (there, name) = (scene.clone(), lock.to_owned());
    let (ttl, _asks) = crashing
        .run(async move {
            let waiter = there.brief_client("waiter").await?;
            Ok((waiter.ttl(), waiter.ask(&name, Mode::Exclusive)))
        })
        .await?;
    waiting(scene, &other, lock, ahead + 1).await?;
    let asking = other.ask(lock, Mode::Exclusive);
    waiting(scene, &other, lock, ahead + 2).await?;
    let crash = crashing.crash(scene, "waiter").await?;
    Ok((asking, ttl, crash))
}

async fn several(scene: Scene) -> Verdict {
    let lock = scene.lock("several");
    let other = scene.client("other").await?;
    let crashing = Crashing::new()?;
    let (there, name, observer) = (scene.clone(), lock.clone(), other.clone());
    let (ttl, _kept) = crashing
        .run(async move {
            let holder = there.brief_client("holder").await?;
            let held = holder.lock(&name, Mode::Exclusive).await?;
            let mut asking = Vec::new();
            for number in 0..3 {
                let waiter = there.brief_client(&format!("waiter{number}")).await?;
                asking.push(waiter.ask(&name, Mode::Exclusive));
                waiting(&there, &observer, &name, number + 1).await?;
            }
            Ok((
                holder.ttl(),
                (held.into_guard("is about to crash with")?, asking),
            ))
        })
        .await?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 4).await?;
    let crash = crashing.crash(&scene, "all of them").await?;
    if !asking.is_pending() {
        return Err(Failure::new("granted before the crash"));
    }
    let held = granted_after(&scene, asking, crash, ttl).await?;
    held.release().await
}
