//! Every server of the store dies, stands still, or is started again.

use std::sync::Arc;

use dlock_core::{LossReason, Mode};

use super::fair::waiting;
use super::live_b::{renews, watch};
use super::nodes::with_harm;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, Scene};
use crate::target::{Harm, Need};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    let gone = |name: &str, harm: Harm| {
        let what = format!(
            "While the store is {harm} its holders are told of their loss; when it is back the lock is \
             free, and its tokens go on rising"
        );
        case(&format!("LIVE-B/store-{name}"), &what, move |scene| {
            store_gone(scene, harm)
        })
    };
    vec![
        gone("killed", Harm::Killed),
        gone("frozen", Harm::Frozen),
        case(
            "COMMITTED/store-restarted",
            "A store that is killed and started again within the TTL has forgotten nothing",
            restarted,
        ),
    ]
}

fn case<R>(name: &str, what: &str, run: impl Fn(Scene) -> R + Send + Sync + 'static) -> Case
where
    R: Future<Output = Verdict> + Send + 'static,
{
    Case::new(name, what, run)
        .needs(Need::Servers)
        .pace(Pace::Alone)
        .limit_to(std::time::Duration::from_secs(180))
}

async fn store_gone(scene: Scene, harm: Harm) -> Verdict {
    let lock = scene.lock("gone");
    let (holder, other) = (
        scene.brief_client("holder").await?,
        scene.brief_client("other").await?,
    );
    let held = Arc::new(holder.lock(&lock, Mode::Exclusive).await?);
    let token = held.token()?;
    renews(&held).await?;
    let watcher = watch(&held);
    let nodes = scene.target().nodes()?;
    let all: Vec<usize> = (0..nodes.count()).collect();
    let reason = with_harm(&scene, &nodes, &all, harm, held.lost(LIMIT)).await?;
    ensure!(
        reason == LossReason::StoreUnreachable,
        "the reason is {reason:?}"
    );
    watcher.await?;
    let theirs = other.lock(&lock, Mode::Exclusive).await?;
    ensure!(
        theirs.token()? > token,
        "token {} after {token}",
        theirs.token()?
    );
    theirs.release().await?;
    let again = holder.lock(&lock, Mode::Exclusive).await?;
    again.release().await
}

async fn restarted(scene: Scene) -> Verdict {
    let lock = scene.lock("restarted");
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let held = holder.lock(&lock, Mode::ProtectedWrite).await?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    let nodes = scene.target().nodes()?;
    let all: Vec<usize> = (0..nodes.count()).collect();
    with_harm(&scene, &nodes, &all, Harm::Killed, async { Ok(()) }).await?;
    let third = scene.client("third").await?;
    let seen = third.client().inspect(&lock).await?;
    ensure!(
        seen.holders.len() == 1 && seen.waiters.len() == 1,
        "the store has forgotten something: {}",
        crate::scene::described(&seen)
    );
    ensure!(
        held.is_held() && asking.is_pending(),
        "the lock was lost, or granted to another, within its TTL"
    );
    held.release().await?;
    asking.granted(LIMIT).await?.release().await
}
