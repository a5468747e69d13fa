//! Does what the plan says, and undoes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::crew::Crew;
use super::ledger::Ledger;
use super::plan::{Plan, Strike};
use crate::Verdict;
use crate::process::Signal;
use crate::scene::LIMIT;
use crate::target::{Condition, Harm, Nodes, Path, Target};

/// How often connections are reset in a storm of resets.
const RESET_EVERY: Duration = Duration::from_millis(50);

/// One lane of faults: each one is over before the next begins.
pub(super) struct Nemesis {
    pub(super) plan: Plan,
    pub(super) target: Arc<dyn Target>,
    pub(super) crew: Arc<Mutex<Crew>>,
    pub(super) ledger: Arc<Ledger>,
    /// Before it data are lost, after it clocks jump.
    pub(super) half: Instant,
    pub(super) until: Instant,
}

impl Nemesis {
    /// Goes on until the time is over. Everything is whole again when it returns.
    pub(super) async fn rage(mut self) -> Verdict {
        while let Some(step) = self.plan.next() {
            if Instant::now() + step.lasts >= self.until {
                break;
            }
            self.strike(self.timely(step.strike), step.lasts).await?;
            tokio::time::sleep(step.then).await;
        }
        Ok(())
    }

    /// The contract does not promise tokens that rise if a clock was wrong *and* the data are lost: the clock
    /// is all that a store without data can go by (on etcd it is the clients'). So one comes after the
    /// other, and a fault whose time is not now is replaced by another one.
    fn timely(&self, strike: Strike) -> Strike {
        let is_late = Instant::now() >= self.half;
        match strike {
            Strike::Wipe if is_late => Strike::Restart { node: 0 },
            Strike::ClockJump { member, .. } if !is_late => Strike::Deaf { member },
            timely => timely,
        }
    }

    async fn strike(&mut self, strike: Strike, lasts: Duration) -> Verdict {
        let what = format!("{strike}, for {lasts:?}");
        let fault = self.ledger.strike(strike.kind(), what);
        let (members, wait) = (Arc::clone(&self.crew), tokio::time::sleep(lasts));
        match strike {
            Strike::Kill { member } => {
                members.lock().await.kill(member).await?;
                wait.await;
                members.lock().await.replace(member).await?;
            }
            Strike::Freeze { member } => {
                members.lock().await.signal(member, Signal::Freeze)?;
                wait.await;
                members.lock().await.signal(member, Signal::Thaw)?;
            }
            Strike::Network { member, condition } => {
                let path = members.lock().await.path(member)?;
                path.set(condition);
                wait.await;
                clear(path.as_ref());
            }
            Strike::ResetStorm { member } => {
                let path = members.lock().await.path(member)?;
                let end = Instant::now() + lasts;
                while Instant::now() < end {
                    path.set(Condition::Refused);
                    tokio::time::sleep(RESET_EVERY / 5).await;
                    path.set(Condition::Clear);
                    tokio::time::sleep(RESET_EVERY).await;
                }
            }
            Strike::Deaf { member } => {
                let mut crew = members.lock().await;
                crew.order(member, "deaf true", "deaf").await?;
                wait.await;
                crew.order(member, "deaf false", "deaf").await?;
            }
            Strike::ClockJump { member, millis } => {
                let mut crew = members.lock().await;
                crew.order(member, &format!("wall-clock {millis}"), "wall-clock")
                    .await?;
                wait.await;
                crew.order(member, "wall-clock 0", "wall-clock").await?;
            }
            Strike::Server { harm, leader, node } => {
                let nodes = self.target.nodes()?;
                let node = if leader { nodes.leader().await? } else { node };
                harmed(nodes.as_ref(), node, harm, lasts).await?;
            }
            Strike::Restart { node } => {
                harmed(
                    self.target.nodes()?.as_ref(),
                    node,
                    Harm::Killed,
                    Duration::ZERO,
                )
                .await?;
            }
            Strike::Wipe => self.target.wipe().await?,
        }
        self.ledger.mend(fault);
        Ok(())
    }
}

/// What was held back arrives now.
fn clear(path: &dyn Path) {
    path.set(Condition::Clear);
    path.deliver();
}

async fn harmed(nodes: &dyn Nodes, node: usize, harm: Harm, lasts: Duration) -> Verdict {
    nodes.harm(node, harm).await?;
    tokio::time::sleep(lasts).await;
    nodes.heal(node, harm).await?;
    nodes.whole().await
}

/// Waits until work goes on after the last fault: so many more grants.
pub(super) async fn work_goes_on(ledger: &Ledger, grants: usize) -> Verdict {
    let goal = ledger.so_far().0 + grants;
    crate::scene::eventually(6 * LIMIT, format!("{grants} more grants"), || {
        ledger.so_far().0 >= goal
    })
    .await
}
