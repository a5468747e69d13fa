//! FAIR: a long queue.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dlock_core::{LockSnapshot, Mode};
use tokio::task::JoinSet;

use crate::case::{Case, Pace};
use crate::scene::{LIMIT, LONG, Scene};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "FAIR/200-waiters",
            "Two hundred clients that wait for one lock are granted in the order in which they came",
            long_queue,
        )
        .limit_to(TIME)
        .pace(Pace::Alone),
    ]
}

const WAITERS: usize = 200;
/// To look at a queue means to look at each of its sessions: on some stores, and on a busy machine, that
/// takes its time when it is done after each one who comes.
const TIME: Duration = Duration::from_secs(180);

async fn long_queue(scene: Scene) -> Verdict {
    let lock = scene.lock("queue");
    let first = scene.client("first").await?;
    let held = first.lock(&lock, Mode::Exclusive).await?;
    // Two hundred sessions on one link: the queue is what is long here, not the list of sockets.
    let link = scene.link().await?;
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut waiters = JoinSet::new();
    let mut expected = Vec::new();
    for number in 0..WAITERS {
        let who = format!("w{number:03}");
        let client = scene.client_over(&who, LONG, link.clone()).await?;
        let asking = client.ask(&lock, Mode::Exclusive);
        let queued = |lock: &LockSnapshot| lock.waiters.len() == number + 1;
        scene
            .until(first.client(), &lock, LIMIT, "the next one waits", queued)
            .await?;
        expected.push(who.clone());
        let order = Arc::clone(&order);
        waiters.spawn(async move {
            let held = asking.granted(TIME).await?;
            order
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(who);
            held.release().await?;
            drop(client);
            Verdict::Ok(())
        });
    }
    held.release().await?;
    while let Some(done) = waiters.join_next().await {
        done??;
    }
    let order = order.lock().unwrap_or_else(PoisonError::into_inner);
    let wrong = order.iter().zip(&expected).find(|(got, due)| got != due);
    ensure!(
        wrong.is_none(),
        "out of turn (granted, whose turn it was): {wrong:?}"
    );
    Ok(())
}
