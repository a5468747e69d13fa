//! Two who hand a lock to each other: one holds it, the other one waits, and then the other way round.
//!
//! Whoever has released does not ask again before the other one was granted. A lock that polls would otherwise
//! be re-taken by its last holder most of the time, and only those hand-offs would be seen where the other one
//! happened to look at the right moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::contestants::{Contestant, Held, Locker};
use crate::crowd::Kind;
use crate::fault::{Context, Fault, Verdict};
use crate::machine;
use crate::worker::{Task, Worker};

type Granted = Verdict<(Box<dyn Held>, u64)>;

/// One of the two.
enum End {
    Here {
        client: Arc<dyn Locker>,
        name: String,
        asked: Option<JoinHandle<Granted>>,
        held: Option<Box<dyn Held>>,
    },
    There(Box<Worker>),
}

impl End {
    async fn new(who: &Contestant, kind: Kind, task: &Task) -> Verdict<Self> {
        Ok(match kind {
            Kind::Processes => Self::There(Box::new(Worker::start(who, task).await?)),
            Kind::Tasks | Kind::Clients => Self::Here {
                client: who.client(&task.place).await?,
                name: task.name.clone(),
                asked: None,
                held: None,
            },
        })
    }

    async fn ask(&mut self) -> Verdict {
        match self {
            Self::Here {
                client,
                name,
                asked,
                ..
            } => {
                let (client, name) = (Arc::clone(client), name.clone());
                *asked = Some(tokio::spawn(async move {
                    let held = client.lock(&name).await?;
                    Ok((held, machine::now()))
                }));
                Ok(())
            }
            Self::There(worker) => worker.say("ask").await,
        }
    }

    /// When it was granted.
    async fn granted(&mut self) -> Verdict<u64> {
        match self {
            Self::Here { asked, held, .. } => {
                let asked = asked.take().ok_or_else(|| Fault::new("it has not asked"))?;
                let (got, at) = asked.await??;
                *held = Some(got);
                Ok(at)
            }
            Self::There(worker) => worker.time().await,
        }
    }

    /// When the release was called.
    async fn release(&mut self) -> Verdict<u64> {
        match self {
            Self::Here { held, .. } => {
                let held = held.take().ok_or_else(|| Fault::new("it does not hold"))?;
                let at = machine::now();
                held.release().await?;
                Ok(at)
            }
            Self::There(worker) => {
                worker.say("release").await?;
                worker.time().await
            }
        }
    }

    async fn close(self) {
        if let Self::Here { client, .. } = self {
            client.close().await;
        }
    }
}

/// Parts of a whole, spread evenly however many there are: multiples of the golden ratio. If each hold were as
/// long as the others, a lock that polls would always be released at the same moment between two looks.
fn spread(number: usize) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    (number as f64 * GOLDEN).fract()
}

/// From each release to the other one's grant, in microseconds, for so long. The lock is held at least
/// for `hold` each time, so that the other one is surely in the queue.
pub(crate) async fn hand_offs(
    who: &Contestant,
    kind: Kind,
    task: &Task,
    hold: Duration,
    time: Duration,
) -> Verdict<Vec<f64>> {
    let mut holder = End::new(who, kind, task).await?;
    let mut other = End::new(who, kind, task).await?;
    holder.ask().await?;
    holder.granted().await?;
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        other.ask().await?;
        tokio::time::sleep(hold + who.looks_after.mul_f64(spread(times.len()))).await;
        let released = holder.release().await?;
        let granted = tokio::time::timeout(Duration::from_secs(15), other.granted()).await;
        let granted = granted.doing("waiting for the next holder")??;
        if granted < released {
            return Err(Fault::new("a grant before the release"));
        }
        times.push((granted - released) as f64 / 1e3);
        std::mem::swap(&mut holder, &mut other);
    }
    holder.release().await?;
    holder.close().await;
    other.close().await;
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn holds_end_at_every_part_of_a_pause() {
        let mut tenths = [0; 10];
        for number in 0..100 {
            tenths[(spread(number) * 10.0) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (8..=12).contains(count)),
            "{tenths:?}"
        );
    }
}
