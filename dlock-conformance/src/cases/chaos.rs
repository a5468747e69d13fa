//! ATOM-A and FENCE under everything at once: several clients, all modes, networks that break at
//! random. Two rules are checked over the whole history, as after every case; and whoever shows a
//! resource its token while its guard says that it holds is admitted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dlock_core::{Fence, Mode};
use tokio::task::JoinSet;

use crate::actor::{Actor, Held};
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, Scene, within};
use crate::target::Condition;
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "ATOM-A/bad-networks",
            "Clients whose networks break at random never hold conflicting modes together",
            bad_networks,
        )
        .pace(Pace::Alone),
    ]
}

const CLIENTS: usize = 6;
const TIME: Duration = Duration::from_secs(6);

async fn bad_networks(scene: Scene) -> Verdict {
    let lock = scene.lock("chaos");
    let fence: Arc<Mutex<Fence>> = Arc::default();
    let end = Instant::now() + TIME;
    let mut clients = Vec::new();
    let mut working = JoinSet::new();
    for number in 0..CLIENTS {
        let client = scene.brief_client(&format!("c{number}")).await?;
        clients.push(client.clone());
        working.spawn(work(client, lock.clone(), Arc::clone(&fence), end));
    }
    while Instant::now() < end {
        let client = &clients[fastrand::usize(..clients.len())];
        scene.set(client.link(), client.who(), random_condition(client.ttl()))?;
        // How long each one lasts is the case's stimulus.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..300))).await;
    }
    for client in &clients {
        scene.set(client.link(), client.who(), Condition::Clear)?;
        client.link().path.iter().for_each(|path| path.deliver());
    }
    let mut grants = 0;
    while let Some(done) =
        within(2 * LIMIT, "the clients come to an end", working.join_next()).await?
    {
        grants += done??;
    }
    ensure!(grants > 20, "only {grants} grants: nothing was shown");
    // Nothing is left behind that nobody holds.
    drop(clients);
    let last = scene.client("last").await?;
    last.lock(&lock, Mode::Exclusive).await?.release().await?;
    scene.until_free(last.client(), &lock, LIMIT).await
}

fn random_condition(ttl: Duration) -> Condition {
    let way = || ttl.mul_f64(fastrand::f64() / 10.0);
    match fastrand::u8(..12) {
        0 => Condition::Refused,
        1 => Condition::Cut,
        2 => Condition::CutToStore,
        3 => Condition::CutFromStore,
        4 => Condition::Held,
        5 | 6 => Condition::Slow {
            to_store: way(),
            from_store: way(),
        },
        _ => Condition::Clear,
    }
}

/// Takes the lock again and again. Returns how often it was granted.
async fn work(
    client: Actor,
    lock: String,
    fence: Arc<Mutex<Fence>>,
    end: Instant,
) -> Verdict<usize> {
    let mut grants = 0;
    while Instant::now() < end {
        let mode = Mode::ALL[fastrand::usize(..Mode::ALL.len())];
        // Its own patience is the case's stimulus too; what it gives up must be taken out.
        let patience = Duration::from_millis(fastrand::u64(20..1500));
        let acquired = tokio::time::timeout(patience, client.acquire(&lock, mode)).await;
        let Ok(Ok(held)) = acquired else {
            continue;
        };
        grants += 1;
        for _ in 0..fastrand::usize(1..10) {
            if !show(&held, mode, &fence)? {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(held);
    }
    Ok(grants)
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
