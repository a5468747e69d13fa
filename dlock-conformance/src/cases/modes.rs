//! ATOM-A: all 36 ordered pairs of modes, held and requested by different clients.

use dlock_core::Mode;

use crate::case::Case;
use crate::check::compatible;
use crate::scene::{PROMPT, Scene};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new(
        "ATOM-A/out-of-date",
        "A client that knew the lock as free is not granted it beside whoever has taken it since",
        out_of_date,
    )];
    for held in Mode::ALL {
        for asked in Mode::ALL {
            let what = if compatible(held, asked) {
                format!("While one client holds {held}, another one's {asked} is granted at once")
            } else {
                format!("While one client holds {held}, another one's {asked} waits for its turn")
            };
            let run = move |scene| pair(scene, held, asked);
            cases.push(Case::new(
                format!("ATOM-A/{asked}-beside-{held}"),
                what,
                run,
            ));
        }
    }
    cases
}

async fn pair(scene: Scene, held: Mode, asked: Mode) -> Verdict {
    let lock = scene.lock("pair");
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let first = holder.lock(&lock, held).await?;
    let tried = other.try_lock(&lock, asked).await?;
    if compatible(held, asked) {
        let tried = tried.ok_or_else(|| refused(held, asked))?;
        tried.release().await?;
        let second = other.ask(&lock, asked).granted(PROMPT).await?;
        ensure!(
            first.is_held() && second.is_held(),
            "{asked} beside {held}: both are granted, but one is not held"
        );
        second.release().await?;
        return first.release().await;
    }
    ensure!(tried.is_none(), "a try was granted {asked} beside {held}");
    let asking = other.ask(&lock, asked);
    let waits = |lock: &dlock_core::LockSnapshot| lock.waiters.len() == 1;
    scene
        .until(holder.client(), &lock, PROMPT, "another waits", waits)
        .await?;
    ensure!(
        asking.is_pending() && first.is_held(),
        "{asked} was granted beside {held}"
    );
    let token = first.token()?;
    first.release().await?;
    let second = asking.granted(PROMPT).await?;
    ensure!(
        second.token()? > token,
        "FENCE: token {} after {token}",
        second.token()?
    );
    second.release().await
}

async fn out_of_date(scene: Scene) -> Verdict {
    let lock = scene.lock("known");
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    for tries in [true, false] {
        other.lock(&lock, Mode::Exclusive).await?.release().await?;
        let held = holder.lock(&lock, Mode::Exclusive).await?;
        if tries {
            let tried = other.try_lock(&lock, Mode::Exclusive).await?;
            ensure!(tried.is_none(), "a try was granted beside the holder");
            held.release().await?;
            continue;
        }
        let asking = other.ask(&lock, Mode::Exclusive);
        let waits = |lock: &dlock_core::LockSnapshot| lock.waiters.len() == 1;
        scene
            .until(holder.client(), &lock, PROMPT, "another waits", waits)
            .await?;
        ensure!(
            asking.is_pending() && held.is_held(),
            "granted beside the holder"
        );
        held.release().await?;
        asking.granted(PROMPT).await?.release().await?;
    }
    Ok(())
}

fn refused(held: Mode, asked: Mode) -> crate::Failure {
    crate::Failure::new(format!("a try was refused {asked} beside {held}"))
}
