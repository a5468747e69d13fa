//! A cluster that loses its majority: nobody is granted anything until it is back.

use std::time::Duration;

use dlock_core::Mode;

use super::nodes::with_harm;
use crate::case::{Case, Pace};
use crate::scene::{GRACE, LIMIT, Scene};
use crate::target::{Harm, Need};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, harm: Harm| {
        let what = format!(
            "While two of three servers are {harm} nothing is granted, and holders are told that \
             their locks are lost"
        );
        Case::new(format!("COMMITTED/majority-{name}"), what, move |scene| {
            majority_lost(scene, harm)
        })
        .needs(Need::Nodes)
        .pace(Pace::Alone)
        .limit_to(Duration::from_secs(180))
    };
    vec![case("killed", Harm::Killed), case("cut-off", Harm::CutOff)]
}

async fn majority_lost(scene: Scene, harm: Harm) -> Verdict {
    let (held_lock, free_lock) = (scene.lock("held"), scene.lock("free"));
    let (holder, other) = (
        scene.brief_client("holder").await?,
        scene.client("other").await?,
    );
    let nodes = scene.target().nodes()?;
    let held = holder.lock(&held_lock, Mode::Exclusive).await?;
    // The leader among them: the one that is left has nobody to agree with.
    let leader = nodes.leader().await?;
    let harmed = [leader, (leader + 1) % nodes.count()];
    let meanwhile = async {
        // A leader that is cut off believes in itself a little longer, and so do those whom it answers.
        held.lost(nodes.election() + holder.ttl() + GRACE).await?;
        tokio::time::sleep(nodes.election()).await;
        for lock in [&held_lock, &free_lock] {
            let asked = tokio::time::timeout(GRACE, other.acquire(lock, Mode::Exclusive)).await;
            ensure!(
                !matches!(asked, Ok(Ok(_))),
                "{lock:?} was granted without a majority"
            );
        }
        Ok(())
    };
    with_harm(&scene, &nodes, &harmed, harm, meanwhile).await?;
    let last = scene.client("last").await?;
    for lock in [&held_lock, &free_lock] {
        // The session of `other` may have been lost, and then lapses.
        let limit = scene.bound(other.ttl()).await? + LIMIT;
        let held = last.ask(lock, Mode::Exclusive).granted(limit).await?;
        held.release().await?;
    }
    Ok(())
}
