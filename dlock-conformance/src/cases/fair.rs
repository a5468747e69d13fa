//! FAIR: who is granted, and when, against the lock table as the oracle.

use std::time::Duration;

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{Attempts, ClaimId, LockSnapshot, Mode, Owner, Wait};

use crate::actor::{Actor, Asking, Held};
use crate::case::{Case, Pace};
use crate::raw::{Raw, token, waits};
use crate::scene::{PROMPT, Scene};
use crate::{Context, Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "FAIR/mixed-modes",
            "Random requests, releases and cancels in all modes are granted exactly as by the lock table",
            mixed_modes,
        )
        .pace(Pace::Alone),
        Case::new(
            "FAIR/nobody-overtakes",
            "A reader does not overtake a writer that waits, neither by waiting nor by trying",
            nobody_overtakes,
        ),
        Case::new(
            "FAIR/compatible-together",
            "Compatible claims at the head of the queue are granted by one release, all of them",
            compatible_together,
        ),
        Case::new(
            "FAIR/a-cancelled-waiter-blocks-nobody",
            "Whoever waited only behind a cancelled waiter is granted at once",
            cancelled_waiter,
        ),
        Case::new(
            "FAIR/the-last-of-several-holders",
            "A writer behind several readers is granted when the last one leaves, in whatever order",
            last_of_several,
        ),
        Case::new(
            "FAIR/released-is-free",
            "Once a release is confirmed, whoever tries gets the lock, and whoever waited and looks has it",
            released_is_free,
        ),
    ]
}

const CLIENTS: usize = 8;
const STEPS: u64 = 120;

/// One client's claim on the lock, and the same claim in the oracle.
enum Slot {
    Idle,
    Asks(Asking, ClaimId),
    Holds(Held, ClaimId),
}

struct Mix {
    scene: Scene,
    lock: String,
    clients: Vec<Actor>,
    slots: Vec<Slot>,
    oracle: LockTable,
}

async fn mixed_modes(scene: Scene) -> Verdict {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(scene.client(&format!("c{number}")).await?);
    }
    let mut mix = Mix {
        lock: scene.lock("mixed"),
        scene,
        slots: clients.iter().map(|_| Slot::Idle).collect(),
        clients,
        oracle: LockTable::default(),
    };
    for step in 1..=STEPS {
        mix.random_step(step);
        mix.settle().await?;
    }
    // Let everybody go: whoever is left must be granted in turn.
    for step in STEPS + 1.. {
        let Some(place) = mix
            .slots
            .iter()
            .position(|slot| matches!(slot, Slot::Holds(..)))
        else {
            break;
        };
        mix.leave(place, step);
        mix.settle().await?;
    }
    ensure!(
        mix.oracle.is_empty(),
        "nobody holds the lock, and somebody waits"
    );
    Ok(())
}

impl Mix {
    fn random_step(&mut self, step: u64) {
        let place = fastrand::usize(..self.slots.len());
        match &self.slots[place] {
            Slot::Idle => {
                let mode = Mode::ALL[fastrand::usize(..Mode::ALL.len())];
                let id = ClaimId {
                    session: (place as u128).into(),
                    number: step,
                };
                let owner = Owner::this_process().labelled(self.clients[place].who());
                self.oracle.request(id, mode, &owner, stamp(step));
                let asking = self.clients[place].ask(&self.lock, mode);
                self.slots[place] = Slot::Asks(asking, id);
            }
            Slot::Asks(..) if fastrand::bool() => {}
            Slot::Asks(..) | Slot::Holds(..) => self.leave(place, step),
        }
    }

    fn leave(&mut self, place: usize, step: u64) {
        match std::mem::replace(&mut self.slots[place], Slot::Idle) {
            Slot::Idle => {}
            Slot::Asks(asking, id) => {
                let who = self.clients[place].who();
                self.scene.history().note(who, "gives up");
                drop(asking);
                self.oracle.withdraw(id, stamp(step));
            }
            Slot::Holds(held, id) => {
                drop(held);
                self.oracle.withdraw(id, stamp(step));
            }
        }
    }

    /// Waits until the store and the clients are where the oracle is, and checks that they are not
    /// ahead of it.
    async fn settle(&mut self) -> Verdict {
        let expected = Shown::of_oracle(&self.oracle);
        let wanted = format!("as in the table: {expected:?}");
        let is_so = |lock: &LockSnapshot| Shown::of_store(lock) == expected;
        let observer = self.clients[0].client();
        self.scene
            .until(observer, &self.lock, PROMPT, &wanted, is_so)
            .await?;
        for (slot, client) in self.slots.iter_mut().zip(&self.clients) {
            let (asking, id) = match std::mem::replace(slot, Slot::Idle) {
                Slot::Asks(asking, id) => (asking, id),
                other => {
                    *slot = other;
                    continue;
                }
            };
            let granted = self
                .oracle
                .get(id)
                .is_some_and(|entry| entry.token.is_some());
            if granted {
                *slot = Slot::Holds(asking.granted(PROMPT).await?, id);
                continue;
            }
            ensure!(
                asking.is_pending(),
                "{} was granted before its turn; it is {wanted}",
                client.who()
            );
            *slot = Slot::Asks(asking, id);
        }
        Ok(())
    }
}

fn stamp(step: u64) -> Stamp {
    Stamp {
        order: step,
        millis: 0,
    }
}

/// Who holds and who waits, each in the order of arrival.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    holders: Vec<(String, Mode)>,
    waiters: Vec<(String, Mode)>,
}

impl Shown {
    fn of_oracle(table: &LockTable) -> Self {
        let list = |granted| {
            let some = table
                .claims()
                .filter(|entry| entry.token.is_some() == granted);
            some.map(|entry| (entry.owner.label.clone(), entry.mode))
                .collect()
        };
        Self {
            holders: list(true),
            waiters: list(false),
        }
    }

    fn of_store(lock: &LockSnapshot) -> Self {
        let list = |claims: &[dlock_core::ClaimSnapshot]| {
            let each = claims.iter();
            each.map(|claim| (claim.owner.label.clone(), claim.mode))
                .collect()
        };
        Self {
            holders: list(&lock.holders),
            waiters: list(&lock.waiters),
        }
    }
}

async fn nobody_overtakes(scene: Scene) -> Verdict {
    let lock = scene.lock("overtake");
    let reader = scene.client("reader").await?;
    let writer = scene.client("writer").await?;
    let late = scene.client("late").await?;
    let held = reader.lock(&lock, Mode::ProtectedRead).await?;
    let writes = writer.ask(&lock, Mode::Exclusive);
    waiting(&scene, &reader, &lock, 1).await?;
    let tried = late.try_lock(&lock, Mode::ProtectedRead).await?;
    ensure!(tried.is_none(), "a try overtook the writer that waits");
    let reads = late.ask(&lock, Mode::ProtectedRead);
    waiting(&scene, &reader, &lock, 2).await?;
    let shows_interest = scene.client("null").await?.lock(&lock, Mode::Null).await?;
    ensure!(
        reads.is_pending() && writes.is_pending(),
        "somebody was granted out of turn"
    );
    held.release().await?;
    let writing = writes.granted(PROMPT).await?;
    ensure!(
        reads.is_pending(),
        "the late reader was granted beside the writer"
    );
    writing.release().await?;
    reads.granted(PROMPT).await?.release().await?;
    shows_interest.release().await
}

async fn compatible_together(scene: Scene) -> Verdict {
    let lock = scene.lock("together");
    let writer = scene.client("writer").await?;
    let held = writer.lock(&lock, Mode::Exclusive).await?;
    let mut asking = Vec::new();
    for (number, mode) in [
        Mode::ProtectedRead,
        Mode::ConcurrentRead,
        Mode::ProtectedRead,
        Mode::ProtectedRead,
    ]
    .into_iter()
    .enumerate()
    {
        let reader = scene.client(&format!("reader{number}")).await?;
        asking.push(reader.ask(&lock, mode));
        waiting(&scene, &writer, &lock, number + 1).await?;
    }
    let next_writer = scene.client("next").await?.ask(&lock, Mode::Exclusive);
    waiting(&scene, &writer, &lock, asking.len() + 1).await?;
    held.release().await?;
    let mut reading = Vec::new();
    for asking in asking {
        reading.push(asking.granted(PROMPT).await?);
    }
    ensure!(
        next_writer.is_pending(),
        "the writer was granted beside readers"
    );
    for held in reading {
        held.release().await?;
    }
    next_writer.granted(PROMPT).await?.release().await
}

async fn cancelled_waiter(scene: Scene) -> Verdict {
    let lock = scene.lock("cancelled");
    let (reader, late) = (scene.client("reader").await?, scene.client("late").await?);
    let held = reader.lock(&lock, Mode::ProtectedRead).await?;
    let writer = scene.client("writer").await?.ask(&lock, Mode::Exclusive);
    waiting(&scene, &reader, &lock, 1).await?;
    let reads = late.ask(&lock, Mode::ProtectedRead);
    waiting(&scene, &reader, &lock, 2).await?;
    scene.history().note("writer", "gives up");
    drop(writer);
    let second = reads.granted(PROMPT).await?;
    ensure!(held.is_held(), "the first reader lost its lock");
    second.release().await?;
    held.release().await
}

async fn last_of_several(scene: Scene) -> Verdict {
    const READERS: usize = 3;
    /// How long somebody has to be granted who should not be: nothing tells that he is not.
    const UNDISTURBED: Duration = Duration::from_millis(200);
    let lock = scene.lock("several");
    let mut readers = Vec::new();
    for number in 0..READERS {
        readers.push(scene.client(&format!("reader{number}")).await?);
    }
    let writer = scene.client("writer").await?;
    // The oldest of them stays to the end, the newest, or the one between.
    for last in 0..READERS {
        let mut reading = Vec::new();
        for reader in &readers {
            reading.push(reader.lock(&lock, Mode::ProtectedRead).await?);
        }
        let writes = writer.ask(&lock, Mode::Exclusive);
        waiting(&scene, &writer, &lock, 1).await?;
        let stays = reading.remove(last);
        for held in reading.into_iter().rev() {
            held.release().await?;
            tokio::time::sleep(UNDISTURBED).await;
            ensure!(
                stays.is_held() && writes.is_pending(),
                "the writer was granted beside a reader"
            );
        }
        stays.release().await?;
        writes.granted(PROMPT).await?.release().await?;
    }
    Ok(())
}

/// Waits until so many claims wait for the lock.
pub(super) async fn waiting(scene: &Scene, client: &Actor, lock: &str, count: usize) -> Verdict {
    let wanted = format!("{count} wait");
    let is_so = |lock: &LockSnapshot| lock.waiters.len() == count;
    let client = client.client();
    match scene.until(client, lock, PROMPT, &wanted, is_so).await {
        Ok(_) => Ok(()),
        Err(failure) => Err(Failure::new(failure.to_string())),
    }
}

/// Of a store of several servers, one that lags behind could answer.
async fn released_is_free(scene: Scene) -> Verdict {
    let lock = scene.lock("free");
    let mut one = Raw::open(&scene, "one").await?;
    let mut two = Raw::open(&scene, "two").await?;
    for round in 1..=40 {
        let first = one.claim(&lock, Mode::Exclusive)?;
        let second = two.claim(&lock, Mode::Exclusive)?;
        token(one.request(&first, Wait::InTurn).await?)?;
        let in_queue = round % 2 == 0;
        if in_queue {
            waits(two.request(&second, Wait::InTurn).await?)?;
        }
        one.withdraw(&first, Attempts::Answered).await?;
        let then = match in_queue {
            true => two.status(&second).await?,
            false => two.request(&second, Wait::Never).await?,
        };
        token(then).because(format!("round {round}"))?;
        two.withdraw(&second, Attempts::Answered).await?;
    }
    Ok(())
}
