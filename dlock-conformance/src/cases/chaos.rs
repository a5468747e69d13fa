//! ATOM-A and FENCE under everything at once: several clients, all modes, networks that break at
//! random.

use std::time::{Duration, Instant};

use super::workload::Workload;
use crate::case::{Case, Pace};
use crate::scene::Scene;
use crate::target::Condition;
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "ATOM-A/bad-networks",
            "Clients whose networks break at random never hold conflicting modes together",
            bad_networks,
        )
        .pace(Pace::Alone),
    ]
}

const CLIENTS: usize = 6;
const TIME: Duration = Duration::from_secs(6);
/// So many grants show something. A busy machine gets more time for them.
const ENOUGH: usize = 20;

async fn bad_networks(scene: Scene) -> Verdict {
    let end = Instant::now() + TIME;
    let workload = Workload::start(&scene, scene.lock("chaos"), CLIENTS).await?;
    let clients = workload.clients();
    while Instant::now() < end || (workload.grants() < ENOUGH && Instant::now() < end + 4 * TIME) {
        let client = &clients[fastrand::usize(..clients.len())];
        scene.set(client.link(), client.who(), random_condition(client.ttl()))?;
        // How long each one lasts is the case's stimulus.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..300))).await;
    }
    for client in clients {
        scene.set(client.link(), client.who(), Condition::Clear)?;
        client.link().path.iter().for_each(|path| path.deliver());
    }
    let grants = workload.end(&scene).await?;
    ensure!(grants >= ENOUGH, "only {grants} grants: nothing was shown");
    Ok(())
}

fn random_condition(ttl: Duration) -> Condition {
    let way = || ttl.mul_f64(fastrand::f64() / 10.0);
    match fastrand::u8(..12) {
        0 => Condition::Refused,
        1 => Condition::Cut,
        2 => Condition::CutToStore,
        3 => Condition::CutFromStore,
        4 => Condition::Held,
        5 | 6 => Condition::Slow {
            to_store: way(),
            from_store: way(),
        },
        _ => Condition::Clear,
    }
}
