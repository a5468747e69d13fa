//! A cluster that loses one of its servers: the one that decides, or each in turn. The others go on,
//! and what they decide agrees with what was decided before.

use std::sync::Arc;
use std::time::Duration;

use dlock_core::Mode;

use super::fair::waiting;
use super::live_a::Crashing;
use super::workload::Workload;
use crate::case::{Case, Pace};
use crate::scene::{LIMIT, Scene};
use crate::target::{Harm, Need, Nodes};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    let leader = |name: &str, harm: Harm| {
        let what = format!(
            "Clients of all modes work while the leader is {harm}: no conflicting modes together, \
             and work goes on"
        );
        case(&format!("ATOM-A/leader-{name}"), &what, move |scene| {
            leader_harmed(scene, harm)
        })
    };
    vec![
        leader("killed", Harm::Killed),
        leader("frozen", Harm::Frozen),
        leader("cut-off", Harm::CutOff),
        case(
            "ATOM-A/rolling-restart",
            "The same while each server is killed and started again, one after the other",
            rolling_restart,
        ),
        case(
            "LIVE-A/holder-and-leader-crash",
            "A holder and the leader crash together: the next waiter gets the lock, an election later",
            holder_and_leader,
        ),
    ]
}

fn case<R>(name: &str, what: &str, run: impl Fn(Scene) -> R + Send + Sync + 'static) -> Case
where
    R: Future<Output = Verdict> + Send + 'static,
{
    Case::new(name, what, run)
        .needs(Need::Nodes)
        .pace(Pace::Alone)
        .limit_to(Duration::from_secs(180))
}

const CLIENTS: usize = 6;
/// Enough to show that work goes on, and not that one grant came through.
const GRANTS: usize = 20;

/// Harms nodes, does something meanwhile, and heals them whatever came of that.
pub(super) async fn with_harm<T>(
    scene: &Scene,
    nodes: &Arc<dyn Nodes>,
    harmed: &[usize],
    harm: Harm,
    meanwhile: impl Future<Output = Verdict<T>>,
) -> Verdict<T> {
    for node in harmed {
        nodes.harm(*node, harm).await?;
        scene
            .history()
            .note("cluster", format!("node {node} is {harm}"));
    }
    let done = meanwhile.await;
    let healing = async {
        for node in harmed {
            nodes.heal(*node, harm).await?;
        }
        nodes.whole().await
    };
    let healed = healing.await;
    scene.history().note("cluster", "is whole again");
    // What came of the work explains more than what came of the healing.
    let done = done?;
    healed?;
    Ok(done)
}

async fn leader_harmed(scene: Scene, harm: Harm) -> Verdict {
    let workload = Workload::start(&scene, scene.lock("leader"), CLIENTS).await?;
    let nodes = scene.target().nodes()?;
    workload.goes_on(GRANTS, LIMIT).await?;
    // Their leases may all run out during the election.
    let limit = after_an_election(&scene, &workload, nodes.as_ref()).await?;
    let leader = nodes.leader().await?;
    let meanwhile = workload.goes_on(GRANTS, limit);
    with_harm(&scene, &nodes, &[leader], harm, meanwhile).await?;
    workload.goes_on(GRANTS, limit).await?;
    workload.end(&scene).await?;
    Ok(())
}

async fn rolling_restart(scene: Scene) -> Verdict {
    let workload = Workload::start(&scene, scene.lock("rolling"), CLIENTS).await?;
    let nodes = scene.target().nodes()?;
    let limit = after_an_election(&scene, &workload, nodes.as_ref()).await?;
    workload.goes_on(GRANTS, LIMIT).await?;
    for node in 0..nodes.count() {
        let meanwhile = workload.goes_on(GRANTS, limit);
        with_harm(&scene, &nodes, &[node], Harm::Killed, meanwhile).await?;
        workload.goes_on(GRANTS, limit).await?;
    }
    workload.end(&scene).await?;
    Ok(())
}

/// Within which work must go on after the leader was lost.
async fn after_an_election(
    scene: &Scene,
    workload: &Workload,
    nodes: &dyn Nodes,
) -> Verdict<Duration> {
    let ttl = workload.clients().iter().map(|client| client.ttl()).max();
    Ok(nodes.election() + scene.bound(ttl.unwrap_or_default()).await? + LIMIT)
}

async fn holder_and_leader(scene: Scene) -> Verdict {
    let lock = scene.lock("both");
    let other = scene.client("other").await?;
    let nodes = scene.target().nodes()?;
    let crashing = Crashing::new()?;
    let (there, name) = (scene.clone(), lock.clone());
    let (holder, _guard) = crashing
        .run(async move {
            let holder = there.brief_client("holder").await?;
            let held = holder.lock(&name, Mode::Exclusive).await?;
            Ok((holder, held.into_guard("is about to crash with")?))
        })
        .await?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    let leader = nodes.leader().await?;
    let crash = crashing.crash(&scene, "holder").await?;
    let bound = scene.bound(holder.ttl()).await? + nodes.election();
    let meanwhile = async {
        let held = asking.granted(bound + LIMIT).await?;
        let took = scene.history().now() - crash;
        ensure!(
            took <= bound,
            "granted {took:?} after the crash, and not within {bound:?}"
        );
        Ok(held)
    };
    let held = with_harm(&scene, &nodes, &[leader], Harm::Killed, meanwhile).await?;
    held.release().await
}
