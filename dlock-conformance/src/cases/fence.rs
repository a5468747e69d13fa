//! FENCE: tokens order conflicting grants, and the resource's half refuses what comes too late.
//!
//! The order of tokens is also checked after every other case, over its whole history.

use std::time::Instant;

use dlock_core::memory::MemoryStore;
use dlock_core::{Attempts, Fence, LossReason, Mode, Wait};

use crate::case::{Case, Pace};
use crate::check::compatible;
use crate::raw::{Raw, token, waits};
use crate::scene::{LIMIT, LONG, SHORT, Scene, within};
use crate::target::{Link, Need};
use crate::{Context, Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "FENCE/holders-and-sessions",
            "Tokens rise from holder to holder, and across a client's end and return",
            holders_and_sessions,
        ),
        Case::new(
            "FENCE/random-modes",
            "A fence that every holder asks admits each of them, and refuses those before them",
            random_modes,
        ),
        Case::new(
            "FENCE/room-for-hand-overs",
            "Grants that conflict are as far apart in the store's order as the core was told",
            room_for_hand_overs,
        ),
        Case::new(
            "FENCE/lost-data",
            "A store that loses its data tells the holders, and its tokens go on rising",
            lost_data,
        )
        .needs(Need::Wipe)
        .pace(Pace::Alone),
        // Only with a store on this machine: a deployment's clock may differ by more than passes here between
        // one store and the next.
        Case::new(
            "FENCE/another-kind-of-store",
            "Tokens of one name go on rising when it moves to another kind of store, and back",
            another_store,
        )
        .not_kept()
        .needs(Need::Wipe),
    ]
}

async fn holders_and_sessions(scene: Scene) -> Verdict {
    let lock = scene.lock("rising");
    let mut last = 0;
    for round in 0..10 {
        // A new session each time, and by turns with another one.
        let client = scene.client(&format!("client{round}")).await?;
        for _ in 0..3 {
            let held = client.lock(&lock, Mode::Exclusive).await?;
            let token = held.token()?.get();
            ensure!(token > last, "token {token} after {last}");
            ensure!(
                i64::try_from(token).is_ok(),
                "{token} does not fit in a signed column"
            );
            last = token;
            held.release().await?;
        }
        if round % 2 == 0 {
            within(LIMIT, "close", client.client().close(LIMIT)).await??;
        }
    }
    Ok(())
}

async fn random_modes(scene: Scene) -> Verdict {
    let lock = scene.lock("fenced");
    let clients = [
        scene.client("a").await?,
        scene.client("b").await?,
        scene.client("c").await?,
    ];
    let mut fence = Fence::new();
    let mut stale = Vec::new();
    let mut held: Vec<crate::actor::Held> = Vec::new();
    for round in 0..60 {
        let client = &clients[round % clients.len()];
        let mode = Mode::ALL[fastrand::usize(..Mode::ALL.len())];
        if let Some(new) = client.try_lock(&lock, mode).await? {
            fence
                .admit(mode, new.token()?)
                .because("a holder is refused")?;
            for (other, token) in &stale {
                let refused = fence.admit(*other, *token).is_err();
                ensure!(
                    refused || compatible(*other, mode),
                    "{other} with token {token} is admitted after {mode} with {}",
                    new.token()?
                );
            }
            held.push(new);
        }
        if held.len() > 2 || fastrand::bool() {
            for guard in held.drain(..) {
                let (mode, token) = (guard.guard()?.mode(), guard.token()?);
                fence
                    .admit(mode, token)
                    .because("a holder is refused at its end")?;
                stale.push((mode, token));
                guard.release().await?;
            }
        }
        stale.drain(..stale.len().saturating_sub(6));
    }
    ensure!(!stale.is_empty(), "nothing was ever granted");
    Ok(())
}

async fn room_for_hand_overs(scene: Scene) -> Verdict {
    let lock = scene.lock("apart");
    let mut one = Raw::open(&scene, "one").await?;
    let mut two = Raw::open(&scene, "two").await?;
    let step = one.session().order_step();
    let mut last = 0;
    for _ in 0..50 {
        let (first, second) = (
            one.claim(&lock, Mode::Exclusive)?,
            two.claim(&lock, Mode::ProtectedRead)?,
        );
        let granted = one.request(&first, Wait::InTurn).await?;
        waits(two.request(&second, Wait::InTurn).await?)?;
        one.withdraw(&first, Attempts::Answered).await?;
        let after = two.status(&second).await?;
        two.withdraw(&second, Attempts::Answered).await?;
        for order in [token(granted)?.order(), token(after)?.order()] {
            ensure!(
                order >= last + step,
                "number {order} after {last}: less than {step} apart"
            );
            last = order;
        }
    }
    Ok(())
}

async fn lost_data(scene: Scene) -> Verdict {
    let lock = scene.lock("wiped");
    let (holder, idle) = (
        scene.brief_client("holder").await?,
        scene.client("idle").await?,
    );
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let before = held.token()?;
    scene.history().note("store", "loses its data");
    scene.target().wipe().await?;
    let reason = held.lost(SHORT.max(holder.ttl())).await?;
    // A store that was started again may take longer than the lease lasts.
    ensure!(
        matches!(reason, LossReason::Revoked | LossReason::StoreUnreachable),
        "the holder was told: {reason}"
    );
    ensure!(
        !held.is_held(),
        "the lock is lost, and the guard says that it is held"
    );
    // One that connects after the loss, and one whose session the store forgot while it was idle.
    let fresh = scene.client_for("fresh", LONG).await?;
    let after = fresh.lock(&lock, Mode::Exclusive).await?;
    let token = after.token()?;
    ensure!(
        token > before,
        "token {token} after {before}, which the store has forgotten"
    );
    after.release().await?;
    let again = holder.lock(&lock, Mode::Exclusive).await?;
    ensure!(
        again.token()? > token,
        "token {} after {token}",
        again.token()?
    );
    again.release().await?;
    // It learns of it by its first request at the latest; the next one succeeds.
    let mut tried = 0;
    loop {
        let asked = within(
            LIMIT,
            "the idle client's request",
            idle.client().lock(&lock),
        )
        .await?;
        match asked {
            Ok(guard) => return idle.hold(&lock, guard).release().await,
            Err(error) if tried > 0 => {
                return Err(Failure::new(format!(
                    "the idle client, the second time: {error}"
                )));
            }
            Err(_) => tried += 1,
        }
    }
}

async fn another_store(scene: Scene) -> Verdict {
    let lock = scene.lock("moves");
    let began = Instant::now();
    let here = scene.client("here").await?;
    here.lock(&scene.lock("asks the time"), Mode::Null)
        .await?
        .release()
        .await?;
    // A client that asks its store for the time knows it to the time of that question. A move takes longer.
    let moving = began.elapsed();
    let there = Link::new(MemoryStore::new().link());
    let there = scene.client_over("there", LONG, there).await?;
    let mut last = 0;
    for client in [&here, &there, &here, &there, &here] {
        let held = client.lock(&lock, Mode::Exclusive).await?;
        let token = held.token()?.get();
        ensure!(
            token > last,
            "token {token} after {last} from the other store"
        );
        last = token;
        held.release().await?;
        tokio::time::sleep(moving).await;
    }
    Ok(())
}
