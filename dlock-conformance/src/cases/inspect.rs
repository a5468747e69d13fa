//! HONEST: a look at a lock shows what there is. COMMITTED: a grant is there when it is reported.

use std::time::{Duration, SystemTime};

use dlock_core::{LockName, Mode};

use super::fair::waiting;
use crate::case::Case;
use crate::scene::{LIMIT, LONG, Scene, within};
use crate::target::Need;
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "HONEST/inspect",
            "A look shows holders and waiters in order, with owner, label, mode, time and token",
            inspect,
        ),
        Case::new(
            "HONEST/listing",
            "The listing of names has a lock exactly while somebody holds it or waits for it",
            listing,
        )
        .not_kept(),
        Case::new(
            "COMMITTED/visible-at-once",
            "When an acquire returns, everybody sees the grant",
            visible_at_once,
        )
        .not_kept(),
        Case::new(
            "COMMITTED/unconfirmed",
            "An acquire whose durability cannot be had fails, and leaves no claim",
            unconfirmed,
        )
        .needs(Need::Unconfirmable),
    ]
}

async fn inspect(scene: Scene) -> Verdict {
    let lock = scene.lock("seen");
    let (first, second) = (scene.client("first").await?, scene.client("second").await?);
    let free = first.client().inspect(&lock).await?;
    ensure!(
        free.is_free() && free.name.as_str() == lock,
        "a lock that nobody has used: {free:?}"
    );
    let one = first.lock(&lock, Mode::ProtectedRead).await?;
    let labelled = second
        .client()
        .lock(&lock)
        .mode(Mode::ConcurrentRead)
        .label("its own label");
    let two = second.hold(&lock, within(LIMIT, "CR beside PR", labelled).await??);
    let writer = first.ask(&lock, Mode::Exclusive);
    waiting(&scene, &first, &lock, 1).await?;
    let updater = second.ask(&lock, Mode::ProtectedWrite);
    waiting(&scene, &first, &lock, 2).await?;

    let seen = second.client().inspect(&lock).await?;
    let shown: Vec<_> = seen
        .holders
        .iter()
        .chain(&seen.waiters)
        .map(|claim| (claim.owner.label.as_str(), claim.mode, claim.token))
        .collect();
    let expected = [
        ("first", Mode::ProtectedRead, Some(one.token()?)),
        ("its own label", Mode::ConcurrentRead, Some(two.token()?)),
        ("first", Mode::Exclusive, None),
        ("second", Mode::ProtectedWrite, None),
    ];
    ensure!(
        shown == expected && seen.holders.len() == 2,
        "it shows\n  {shown:?}\nand should\n  {expected:?}"
    );
    for claim in seen.holders.iter().chain(&seen.waiters) {
        let owner = &claim.owner;
        ensure!(
            owner.pid == std::process::id() && !owner.host.is_empty(),
            "it is not this process's: {owner:?}"
        );
        // The store's clock need not be this machine's; it should know the day.
        let away = match SystemTime::now().duration_since(claim.since) {
            Ok(past) => past,
            Err(future) => future.duration(),
        };
        ensure!(
            away < Duration::from_secs(86_400),
            "since {:?}?",
            claim.since
        );
    }
    drop((writer, updater));
    two.release().await?;
    one.release().await?;
    scene.until_free(first.client(), &lock, LIMIT).await
}

async fn listing(scene: Scene) -> Verdict {
    let lock = LockName::new(scene.lock("listed"))?;
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let listed = async || -> Verdict<usize> {
        let names = other.client().names().await?;
        ensure!(names.is_sorted(), "the names are not sorted");
        Ok(names.iter().filter(|name| **name == lock).count())
    };
    let expect = |count: usize, expected: usize, when: &str| {
        if count == expected {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{when}: the name is listed {count} times"
        )))
    };
    expect(listed().await?, 0, "before its use")?;
    let held = holder.lock(lock.as_str(), Mode::Null).await?;
    expect(listed().await?, 1, "held in NL")?;
    held.release().await?;
    expect(listed().await?, 0, "released")?;
    let held = holder.lock(lock.as_str(), Mode::Exclusive).await?;
    let asking = other.ask(lock.as_str(), Mode::Exclusive);
    waiting(&scene, &other, lock.as_str(), 1).await?;
    expect(listed().await?, 1, "held, and waited for")?;
    held.release().await?;
    asking.granted(LIMIT).await?.release().await?;
    expect(listed().await?, 0, "released by both")
}

async fn visible_at_once(scene: Scene) -> Verdict {
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    for round in 0..20 {
        let lock = scene.lock(&format!("visible{round}"));
        let held = holder.lock(&lock, Mode::Exclusive).await?;
        let seen = other.client().inspect(&lock).await?;
        let token = seen.holders.first().and_then(|claim| claim.token);
        ensure!(
            token == Some(held.token()?),
            "granted with token {}, and the store shows {seen:?}",
            held.token()?
        );
        held.release().await?;
        let seen = other.client().inspect(&lock).await?;
        ensure!(seen.is_free(), "released, and the store shows {seen:?}");
    }
    Ok(())
}

async fn unconfirmed(scene: Scene) -> Verdict {
    let lock = scene.lock("unconfirmed");
    let observer = scene.client("observer").await?;
    let link = scene.target().unconfirmable().await?;
    let client = scene.client_over("client", LONG, link).await?;
    let asked = within(LIMIT, "the acquire fails", client.client().lock(&lock)).await?;
    match &asked {
        Err(dlock_core::Error::Store { source, .. })
            if source.kind() == dlock_core::StoreErrorKind::Unconfirmed => {}
        other => {
            return Err(Failure::new(format!(
                "expected an unconfirmed grant, got {other:?}"
            )));
        }
    }
    scene.until_free(observer.client(), &lock, LIMIT).await?;
    // And when it is the push that grants.
    let held = observer.lock(&lock, Mode::Exclusive).await?;
    let asking = client.ask(&lock, Mode::Exclusive);
    waiting(&scene, &observer, &lock, 1).await?;
    held.release().await?;
    let result = asking.result(LIMIT).await?;
    ensure!(
        result.is_err(),
        "a grant by push was reported, which no replica has"
    );
    scene.until_free(observer.client(), &lock, LIMIT).await
}
