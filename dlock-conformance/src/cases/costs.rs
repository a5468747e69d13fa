//! The contract's table of costs, row by row, counted by the store itself.

use std::time::Duration;

use dlock_core::Mode;

use crate::actor::Actor;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, PROMPT, Scene};
use crate::target::{Counts, Need};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, what: &str| (format!("COSTS/{name}"), what.to_owned());
    let all = [
        (
            case(
                "acquire-and-release",
                "A free lock costs one request to take, and one to release",
            ),
            Row::Free,
        ),
        (
            case(
                "wait",
                "Waiting costs one request and one push, a hand-over the release and a push",
            ),
            Row::Wait,
        ),
        (
            case(
                "woken",
                "A release of a lock that many wait for wakes only the one who is granted",
            ),
            Row::Woken,
        ),
        (
            case(
                "refused-try",
                "A try on a held lock costs one request, and writes nothing",
            ),
            Row::Try,
        ),
    ];
    all.into_iter()
        .map(|((name, what), row)| {
            Case::new(name, what, move |scene| async move {
                match row {
                    Row::Free => free(scene).await,
                    Row::Wait => wait(scene).await,
                    Row::Woken => woken(scene).await,
                    Row::Try => refused_try(scene).await,
                }
            })
            .needs(Need::Meter)
            .not_kept()
            .pace(Pace::Alone)
        })
        .collect()
}

#[derive(Clone, Copy)]
enum Row {
    Free,
    Wait,
    Woken,
    Try,
}

/// Reads the store's counters around what a case does. Looks of the case itself would be counted
/// too, so it waits by the counters.
pub(super) struct Reading {
    meter: std::sync::Arc<dyn crate::target::Meter>,
    scene: Scene,
    last: Counts,
}

/// Long enough for a request that should not be made to be made.
const QUIET: Duration = Duration::from_millis(150);

impl Reading {
    /// Begins when the store has nothing left to do for others.
    pub(super) async fn begin(scene: &Scene) -> Verdict<Self> {
        let meter = scene.target().meter()?;
        let mut reading = Self {
            last: meter.read().await?,
            meter,
            scene: scene.clone(),
        };
        reading.quiet().await?;
        Ok(reading)
    }

    /// What was done since the last reading, once nothing is done any more.
    pub(super) async fn quiet(&mut self) -> Verdict<Counts> {
        let first = self.last;
        let start = std::time::Instant::now();
        let mut before = self.meter.read().await?;
        loop {
            tokio::time::sleep(QUIET).await;
            let now = self.meter.read().await?;
            if (now.requests, now.pushes) == (before.requests, before.pushes) {
                self.last = now;
                let done = now - first;
                self.scene
                    .history()
                    .note("store", format!("has done {done:?}"));
                return Ok(done);
            }
            before = now;
            ensure!(start.elapsed() < PROMPT, "the store is never idle");
        }
    }

    /// Waits until so many requests were made since the last reading.
    pub(super) async fn requests(&self, count: u64) -> Verdict {
        let start = std::time::Instant::now();
        while (self.meter.read().await? - self.last).requests < count {
            ensure!(start.elapsed() < LIMIT, "{count} requests were not made");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    pub(super) fn prices(&self) -> crate::target::Prices {
        self.meter.prices()
    }
}

fn cost(what: &str, cost: u64, price: u64) -> Verdict {
    ensure!(cost == price, "{what}: {cost} instead of {price}");
    Ok(())
}

/// What is done once for each connection is not a cost of a lock.
async fn warm_up(scene: &Scene, client: &Actor) -> Verdict {
    let held = client.lock(&scene.lock("warm-up"), Mode::Exclusive).await?;
    held.release().await
}

async fn free(scene: Scene) -> Verdict {
    let client = scene.client("client").await?;
    warm_up(&scene, &client).await?;
    let mut reading = Reading::begin(&scene).await?;
    let prices = reading.prices();
    let mut price = prices.first_acquire;
    for mode in [Mode::Exclusive, Mode::ProtectedRead, Mode::Null] {
        let held = client.lock(&scene.lock("free"), mode).await?;
        let done = reading.quiet().await?;
        cost("requests to acquire a free lock", done.requests, price)?;
        price = prices.acquire;
        cost("pushes for a free lock", done.pushes, 0)?;
        held.release().await?;
        let done = reading.quiet().await?;
        cost("requests to release", done.requests, prices.release)?;
        cost("pushes for a release that nobody waits for", done.pushes, 0)?;
    }
    Ok(())
}

async fn wait(scene: Scene) -> Verdict {
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let lock = scene.lock("wait");
    warm_up(&scene, &other).await?;
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let mut reading = Reading::begin(&scene).await?;
    let asking = other.ask(&lock, Mode::Exclusive);
    reading.requests(1).await?;
    let done = reading.quiet().await?;
    cost(
        "requests to take a place in the queue",
        done.requests,
        reading.prices().enqueue,
    )?;
    ensure!(
        done.pushes <= 1,
        "{} pushes when one client begins to wait",
        done.pushes
    );
    held.release().await?;
    let held = asking.granted(PROMPT).await?;
    let done = reading.quiet().await?;
    let price = reading.prices().release + reading.prices().take_over;
    cost("requests to hand over", done.requests, price)?;
    cost("pushes to hand over", done.pushes, 1)?;
    held.release().await
}

async fn woken(scene: Scene) -> Verdict {
    const WAITERS: u64 = 10;
    let holder = scene.client("holder").await?;
    let lock = scene.lock("woken");
    let mut held = holder.lock(&lock, Mode::Exclusive).await?;
    let mut clients = Vec::new();
    for number in 0..WAITERS {
        let client = scene.client(&format!("w{number}")).await?;
        warm_up(&scene, &client).await?;
        clients.push(client);
    }
    let mut reading = Reading::begin(&scene).await?;
    let mut waiters = Vec::new();
    for (number, client) in (1..).zip(&clients) {
        waiters.push(client.ask(&lock, Mode::Exclusive));
        // One after the other, so that it is known who is next.
        reading.requests(number * reading.prices().enqueue).await?;
    }
    reading.quiet().await?;
    let prices = reading.prices();
    let mut least = u64::MAX;
    for asking in waiters.into_iter().take(5) {
        held.release().await?;
        held = asking.granted(PROMPT).await?;
        let done = reading.quiet().await?;
        cost("pushes to hand over with many waiters", done.pushes, 1)?;
        least = least.min(done.requests);
    }
    // The least, because waiters also look by themselves now and then (WAKE).
    let most = prices.take_over.max(prices.take_over_in_a_queue);
    let requests = prices.release + prices.take_over..=prices.release + most;
    ensure!(
        requests.contains(&least),
        "requests to hand over with many waiters: {least} instead of {requests:?}"
    );
    Ok(())
}

async fn refused_try(scene: Scene) -> Verdict {
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let lock = scene.lock("tried");
    warm_up(&scene, &other).await?;
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let mut reading = Reading::begin(&scene).await?;
    let tried = other.try_lock(&lock, Mode::ProtectedRead).await?;
    ensure!(tried.is_none(), "granted beside the holder");
    let done = reading.quiet().await?;
    cost(
        "requests for a try on a held lock",
        done.requests,
        reading.prices().refused_try,
    )?;
    cost("pushes for a try on a held lock", done.pushes, 0)?;
    cost(
        "changes by a try on a held lock",
        done.changes.unwrap_or(0),
        0,
    )?;
    held.release().await
}
