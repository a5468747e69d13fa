//! Another operating-system process, for cases that kill or freeze a holder.
//!
//! It takes orders from its standard input, a line each, and reports on its standard output:
//!
//! | order | report |
//! | --- | --- |
//! | `connect TTL-IN-MS LABEL` | `connected` |
//! | `lock MODE NAME` | `granted TOKEN` |
//! | `held?` | `held true` or `held false` |
//! | `release` | `released` |
//! | `deaf true` or `deaf false` | `deaf`: pushes are lost from now on, or arrive again |
//! | `wall-clock MILLIS` | `wall-clock`: it is ahead by so much from now on (feature `mutants`) |
//! | `soak …` | `soaking`, and then the lines of a [fault run](crate::soak) |
//! | `stop` | `stopped`, when that has come to its end |
//! | `serve` | `serves ADDRESS`: the process is the resource of a fault run from now on |
//!
//! What fails is reported as `failed …`. Without being asked it reports `lost …` when the lock is
//! lost. It ends when its input does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dlock_core::{Backend, Client, Guard, Mode, Ttl};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use crate::scene::LIMIT;
use crate::sharing::Sharing;
use crate::soak::{Work, serve};
use crate::wrap::Deaf;
use crate::{Context, Failure, Verdict};

/// The first argument by which the suite's own programs know that they are a worker.
pub const ARGUMENT: &str = "worker";

/// The environment variable that tells the suite's own worker where the store is.
pub const URL: &str = "DLOCK_CONFORMANCE_URL";

/// Runs the worker with this backend until its input ends. A target of your own starts a program
/// that calls it: see [`Target::worker`](crate::target::Target::worker).
///
/// # Errors
///
/// A [`Failure`] when the input cannot be read.
pub async fn run(backend: impl Backend) -> Verdict {
    let deaf = Arc::new(AtomicBool::new(false));
    let backend: Arc<dyn Backend> = Arc::new(Deaf::while_set(Arc::new(backend), deaf.clone()));
    let mut orders = BufReader::new(stdin()).lines();
    let mut worker = Worker {
        deaf,
        ..Worker::default()
    };
    while let Some(order) = orders.next_line().await.because("reading an order")? {
        match worker.obey(&backend, &order).await {
            Ok(report) => say(&report),
            Err(failure) => say(&format!("failed {failure}")),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Worker {
    client: Option<Client>,
    guard: Option<Arc<Guard>>,
    work: Option<Work>,
    deaf: Arc<AtomicBool>,
}

impl Worker {
    async fn obey(&mut self, backend: &Arc<dyn Backend>, order: &str) -> Verdict<String> {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["connect", ttl, label] => {
                let ttl = Ttl::new(Duration::from_millis(ttl.parse()?))?;
                let builder = Client::builder(Arc::clone(backend)).ttl(ttl).label(label);
                let builder = Sharing::of_this_process().set_up(builder);
                self.client = Some(builder.connect().await?);
                Ok("connected".into())
            }
            ["lock", mode, name] => {
                let client = self.client()?;
                let mode: Mode = mode.parse()?;
                let guard = Arc::new(client.lock(name).mode(mode).await?);
                self.guard = Some(Arc::clone(&guard));
                let token = guard.token();
                tokio::spawn(report_loss(Arc::downgrade(&guard)));
                Ok(format!("granted {token}"))
            }
            ["held?"] => {
                let held = self.guard.as_ref().is_some_and(|guard| guard.is_held());
                Ok(format!("held {held}"))
            }
            ["release"] => {
                let guard = self.guard.take();
                let guard = guard.ok_or_else(|| Failure::new("holds nothing"))?;
                alone(guard).await.release().await?;
                Ok("released".into())
            }
            ["deaf", deaf] => {
                self.deaf.store(deaf.parse()?, Ordering::Relaxed);
                Ok("deaf".into())
            }
            #[cfg(feature = "mutants")]
            ["wall-clock", millis] => {
                dlock_core::mutants::set_wall_clock_ahead(millis.parse()?);
                Ok("wall-clock".into())
            }
            ["soak", ref brief @ ..] => {
                self.work = Some(Work::start(self.client()?.clone(), brief)?);
                Ok("soaking".into())
            }
            ["stop"] => {
                let work = self.work.take();
                let work = work.ok_or_else(|| Failure::new("nothing was begun"))?;
                work.stop(3 * LIMIT).await?;
                Ok("stopped".into())
            }
            ["serve"] => serve().await.map(|()| "served".into()),
            _ => Err(Failure::new(format!("no such order: {order:?}"))),
        }
    }

    fn client(&self) -> Verdict<&Client> {
        let client = self.client.as_ref();
        client.ok_or_else(|| Failure::new("not connected"))
    }
}

/// The guard, once nobody looks at it.
async fn alone(mut guard: Arc<Guard>) -> Guard {
    loop {
        match Arc::try_unwrap(guard) {
            Ok(guard) => return guard,
            Err(shared) => guard = shared,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn report_loss(guard: std::sync::Weak<Guard>) {
    // Looks at the guard and lets go of it, so that a release finds it unshared.
    loop {
        match guard.upgrade() {
            None => return,
            Some(guard) if guard.is_held() => {}
            Some(guard) => return say(&format!("lost {}", guard.lost().await)),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn say(report: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: the suite is gone, and the input ends too.
    let _ = writeln!(out, "{report}").and_then(|()| out.flush());
}
