//! Clients that take one lock again and again in all modes, and show a resource their tokens.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dlock_core::{Fence, Mode};
use tokio::task::JoinSet;

use crate::actor::{Actor, Held};
use crate::scene::{LIMIT, Scene, within};
use crate::{Failure, Verdict};

/// The clients at work. ATOM-A and FENCE are checked over what they do, as after every case; and
/// whoever shows the resource its token while its guard says that it holds is admitted.
pub(super) struct Workload {
    lock: String,
    clients: Vec<Actor>,
    working: JoinSet<Verdict>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    fence: Mutex<Fence>,
    grants: AtomicUsize,
    over: AtomicBool,
}

impl Workload {
    /// Starts so many clients, with brief leases.
    pub(super) async fn start(scene: &Scene, lock: String, count: usize) -> Verdict<Self> {
        let mut workload = Self {
            lock,
            clients: Vec::new(),
            working: JoinSet::new(),
            shared: Arc::default(),
        };
        for number in 0..count {
            let client = scene.brief_client(&format!("c{number}")).await?;
            workload.clients.push(client.clone());
            let (lock, shared) = (workload.lock.clone(), Arc::clone(&workload.shared));
            workload.working.spawn(work(client, lock, shared));
        }
        Ok(workload)
    }

    pub(super) fn clients(&self) -> &[Actor] {
        &self.clients
    }

    /// How often the lock was granted so far.
    pub(super) fn grants(&self) -> usize {
        self.shared.grants.load(Ordering::Relaxed)
    }

    /// Waits until the lock has been granted so often since now.
    pub(super) async fn goes_on(&self, grants: usize, limit: Duration) -> Verdict {
        let goal = self.grants() + grants;
        let what = format!("{grants} more grants");
        crate::scene::eventually(limit, what, || self.grants() >= goal).await
    }

    /// Ends the work, and checks that nothing is left behind. Returns how often the lock was granted.
    pub(super) async fn end(mut self, scene: &Scene) -> Verdict<usize> {
        self.shared.over.store(true, Ordering::Relaxed);
        while let Some(done) = within(
            2 * LIMIT,
            "the clients come to an end",
            self.working.join_next(),
        )
        .await?
        {
            done??;
        }
        drop(self.clients);
        let last = scene.client("last").await?;
        let held = last.lock(&self.lock, Mode::Exclusive).await?;
        held.release().await?;
        scene.until_free(last.client(), &self.lock, LIMIT).await?;
        Ok(self.shared.grants.load(Ordering::Relaxed))
    }
}

async fn work(client: Actor, lock: String, shared: Arc<Shared>) -> Verdict {
    while !shared.over.load(Ordering::Relaxed) {
        let mode = Mode::ALL[fastrand::usize(..Mode::ALL.len())];
        // Its own patience is a stimulus too; what it gives up must be taken out.
        let patience = Duration::from_millis(fastrand::u64(20..1500));
        let acquired = tokio::time::timeout(patience, client.acquire(&lock, mode)).await;
        let Ok(Ok(held)) = acquired else {
            // Not as fast as it can where the store is gone.
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        shared.grants.fetch_add(1, Ordering::Relaxed);
        for _ in 0..fastrand::usize(1..10) {
            if !show(&held, mode, &shared.fence)? {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(held);
    }
    Ok(())
}

/// Shows the resource the token; false once the lock is lost.
fn show(held: &Held, mode: Mode, fence: &Mutex<Fence>) -> Verdict<bool> {
    let mut fence = fence.lock().unwrap_or_else(PoisonError::into_inner);
    let admitted = fence.admit(mode, held.token()?);
    // Looked at after the refusal: still held then, so held when it was refused.
    let still = held.is_held();
    match admitted {
        Err(stale) if still => Err(Failure::new(format!("a holder was refused: {stale}"))),
        _ => Ok(still),
    }
}
