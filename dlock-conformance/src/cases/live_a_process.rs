//! LIVE-A with real processes: one killed, one frozen past its lease and continued.

use dlock_core::Mode;

use super::fair::waiting;
use super::live_a::granted_after;
use crate::case::{Case, Pace};
use crate::process::{Process, Signal};
use crate::scene::{GRACE, LIMIT, SHORT, Scene};
use crate::target::Need;
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "LIVE-A/sigkill",
            "A process killed by SIGKILL loses its lock, and the next waiter gets it",
            killed,
        )
        .needs(Need::Processes)
        .pace(Pace::Timed),
        Case::new(
            "LIVE-A/sigstop",
            "A process frozen past its lease loses its lock, and knows it as soon as it goes on",
            frozen,
        )
        .needs(Need::Processes)
        .pace(Pace::Timed),
    ]
}

async fn killed(scene: Scene) -> Verdict {
    let lock = scene.lock("killed");
    let other = scene.client("other").await?;
    let ttl = SHORT.max(other.client().capabilities().min_ttl);
    let mut process = Process::start(&scene, "process", ttl).await?;
    process.order(&format!("lock EX {lock}")).await?;
    let token: u64 = process.report("granted", LIMIT).await?.parse()?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    // Past its first lease, so that it is the renewals that have kept the lock.
    tokio::time::sleep(ttl + ttl / 5).await;
    process.order("held?").await?;
    let held = process.report("held", LIMIT).await?;
    ensure!(
        held == "true" && asking.is_pending(),
        "the process does not renew its lease"
    );
    let kill = scene.history().now();
    process.signal(Signal::Kill)?;
    let held = granted_after(&scene, asking, kill, ttl).await?;
    let later = held.token()?;
    ensure!(later.get() > token, "FENCE: token {later} after {token}");
    held.release().await
}

async fn frozen(scene: Scene) -> Verdict {
    let lock = scene.lock("frozen");
    let other = scene.client("other").await?;
    let ttl = SHORT.max(other.client().capabilities().min_ttl);
    let mut process = Process::start(&scene, "process", ttl).await?;
    process.order(&format!("lock EX {lock}")).await?;
    let token: u64 = process.report("granted", LIMIT).await?.parse()?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    let freeze = scene.history().now();
    process.signal(Signal::Freeze)?;
    let held = granted_after(&scene, asking, freeze, ttl).await?;
    let later = held.token()?;
    ensure!(later.get() > token, "FENCE: token {later} after {token}");
    // The question is there before the process goes on: it is the first thing that it does.
    process.order("held?").await?;
    process.signal(Signal::Thaw)?;
    let mut told_lost = false;
    let answer = loop {
        // The news of the loss may come first.
        match process.any_report(GRACE).await? {
            (word, rest) if word == "held" => break rest,
            (word, _) if word == "lost" => told_lost = true,
            (word, rest) => return Err(crate::Failure::new(format!("it reported {word} {rest}"))),
        }
    };
    ensure!(
        answer == "false",
        "a process that was frozen past its lease says that it holds"
    );
    if !told_lost {
        process.report("lost", GRACE).await?;
    }
    ensure!(
        held.is_held(),
        "the thawed process took the lock from its holder"
    );
    // It can take locks again, in a new session, in its turn.
    process.order(&format!("lock EX {lock}")).await?;
    waiting(&scene, &other, &lock, 1).await?;
    held.release().await?;
    let again: u64 = process.report("granted", LIMIT).await?.parse()?;
    ensure!(again > later.get(), "FENCE: token {again} after {later}");
    Ok(())
}
