//! What the contract does not promise: the loss is shown, and that tokens hold all the same.

use std::time::Duration;

use dlock_core::{Fence, Mode};

use super::fair::waiting;
use super::nodes::with_harm;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, PROMPT, Scene, within};
use crate::target::{Harm, Need};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "FENCE/failover-that-loses-a-grant",
            "Known limit: after a failover that lost the newest writes two clients believe that they \
             hold one lock; a fence refuses the first of them",
            failover,
        )
        .needs(Need::Rollback)
        .pace(Pace::Alone),
        Case::new(
            "FENCE/leader-goes-on-after-a-lease",
            "A leader that stood still for longer than a lease goes on: nobody loses a lease that was \
             renewed meanwhile (known limit of etcd: it may; tokens rise all the same, and a fence \
             refuses the first holder)",
            leader_goes_on,
        )
        .needs(Need::Nodes)
        .pace(Pace::Alone),
    ];
    if cfg!(feature = "mutants") {
        cases.push(
            Case::new(
                "FENCE/wall-clock-jumps",
                "A client whose wall clock jumps ahead or back keeps its lock, and tokens go on rising",
                clock_jumps,
            )
            .needs(Need::Processes)
            // On etcd tokens follow the clients' clocks: not on a deployment that others use.
            .needs(Need::Servers)
            .pace(Pace::Alone),
        );
    }
    cases
}

async fn failover(scene: Scene) -> Verdict {
    let (lock, other_lock) = (scene.lock("failover"), scene.lock("before"));
    let (first, second) = (scene.client("first").await?, scene.client("second").await?);
    // Both sessions are on the replica that will take over.
    for client in [&first, &second] {
        client
            .lock(&other_lock, Mode::Exclusive)
            .await?
            .release()
            .await?;
    }
    let target = scene.target();
    target.keep_copy().await?;
    // Not recorded: the rule that every history is held to is the one that is broken here.
    let lost = first.client().lock(&lock).await?;
    scene.history().note(
        "first",
        format!("granted, token {}, which the copy lacks", lost.token()),
    );
    target.fail_over().await?;
    scene.history().note("store", "goes on from the copy");
    let mut fence = Fence::new();
    fence.admit(lost.mode(), lost.token())?;
    let theirs = second.client().lock(&lock).timeout(LIMIT).await?;
    ensure!(
        lost.is_held() && theirs.is_held(),
        "the limit is gone: say so in the contract"
    );
    ensure!(
        theirs.token() > lost.token(),
        "token {} after {}, which the store has forgotten",
        theirs.token(),
        lost.token()
    );
    fence.admit(theirs.mode(), theirs.token())?;
    ensure!(
        fence.admit(lost.mode(), lost.token()).is_err(),
        "the fence lets the first holder in"
    );
    // Its release frees nobody (ATOM-B).
    let released = lost.release().await;
    scene
        .history()
        .note("first", format!("releases: {released:?}"));
    let seen = second.client().inspect(&lock).await?;
    ensure!(
        seen.holders.len() == 1 && theirs.is_held(),
        "a release of what was lost has freed another's lock"
    );
    theirs.release().await?;
    Ok(())
}

async fn leader_goes_on(scene: Scene) -> Verdict {
    let lock = scene.lock("goes-on");
    let nodes = scene.target().nodes()?;
    // A lease that outlasts an election.
    let ttl = nodes.election() + Duration::from_secs(5);
    let holder = scene.client_for("holder", ttl).await?;
    let other = scene.client("other").await?;
    // Not recorded: where the limit is met, it breaks the rule that every history is held to.
    let mine = holder.client().lock(&lock).await?;
    let asked = tokio::spawn({
        let (client, lock) = (other.client().clone(), lock.clone());
        async move { client.lock(lock).await }
    });
    waiting(&scene, &other, &lock, 1).await?;
    let leader = nodes.leader().await?;
    let stands_still = tokio::time::sleep(ttl + ttl / 4);
    let meanwhile = async {
        stands_still.await;
        Ok(())
    };
    with_harm(&scene, &nodes, &[leader], Harm::Frozen, meanwhile).await?;
    // What it does wrong, it does at once.
    let reason = tokio::time::timeout(PROMPT, mine.lost()).await.ok();
    scene
        .history()
        .note("holder", format!("after that: lost {reason:?}"));
    ensure!(
        reason.is_none() || nodes.ends_renewed_leases(),
        "a lease that was renewed was lost: {reason:?}"
    );
    let mut fence = Fence::new();
    fence.admit(mine.mode(), mine.token())?;
    let (mode, token) = (mine.mode(), mine.token());
    if reason.is_none() {
        mine.release().await?;
    }
    let theirs = within(scene.bound(holder.ttl()).await? + LIMIT, "granted", asked).await???;
    ensure!(
        theirs.token() > token,
        "token {} after {token}",
        theirs.token()
    );
    fence.admit(theirs.mode(), theirs.token())?;
    ensure!(
        fence.admit(mode, token).is_err(),
        "the fence lets the first holder in"
    );
    theirs.release().await?;
    Ok(())
}

#[cfg(not(feature = "mutants"))]
async fn clock_jumps(_: Scene) -> Verdict {
    Err(crate::Failure::new("no clock can be made to jump"))
}

#[cfg(feature = "mutants")]
async fn clock_jumps(scene: Scene) -> Verdict {
    use crate::process::Process;
    use crate::scene::SHORT;

    let lock = scene.lock("jumps");
    let other = scene.client("other").await?;
    let ttl = SHORT.max(other.client().capabilities().min_ttl);
    let mut process = Process::start(&scene, "process", ttl).await?;
    let mut last = 0;
    let hour = 3_600_000_i64;
    // What a clock that is ahead has done to tokens goes with the data, where they can be made to go.
    let can_wipe = scene.target().lacks(Need::Wipe).is_none();
    let far_ahead = if can_wipe { 36 * hour } else { 0 };
    for ahead in [0, far_ahead, -36 * hour, 0] {
        process.order(&format!("wall-clock {ahead}")).await?;
        process.report("wall-clock", LIMIT).await?;
        process.order(&format!("lock EX {lock}")).await?;
        let token: u64 = process.report("granted", LIMIT).await?.parse()?;
        ensure!(token > last, "token {token} after {last}");
        // It jumps once more while the lock is held, and renewals go on.
        let back = -ahead.abs();
        process.order(&format!("wall-clock {back}")).await?;
        process.report("wall-clock", LIMIT).await?;
        tokio::time::sleep(ttl + ttl / 4).await;
        process.order("held?").await?;
        let held = process.report("held", crate::scene::GRACE).await?;
        ensure!(held == "true", "a jump of {ahead} ms cost a lock");
        process.order("release").await?;
        process.report("released", LIMIT).await?;
        let theirs = other.lock(&lock, Mode::Exclusive).await?;
        ensure!(
            theirs.token()?.get() > token,
            "token {} after {token}",
            theirs.token()?
        );
        last = theirs.token()?.get();
        theirs.release().await?;
    }
    if can_wipe {
        drop((process, other));
        scene.target().wipe().await?;
    }
    Ok(())
}
