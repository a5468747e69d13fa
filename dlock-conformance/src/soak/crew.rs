//! The workers of a fault run, and the resource: processes that are started, told, harmed and replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::lines::Line;
use super::work::Brief;
use crate::process::{Signal, Started, send};
use crate::scene::{LIMIT, within};
use crate::target::{Path, Target};
use crate::{Context, Failure, Verdict, ensure};

/// A process of the run, whose events go into the ledger. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Runner {
    what: String,
    life: u32,
    child: Child,
    orders: ChildStdin,
    /// What it answers to orders.
    answers: mpsc::UnboundedReceiver<String>,
    reading: JoinHandle<()>,
    /// Whether its end is no surprise.
    may_end: Arc<AtomicBool>,
    /// The network between it and the store, which lives as long as it does.
    path: Option<Arc<dyn Path>>,
}

impl Runner {
    async fn start(
        target: &dyn Target,
        ledger: &Arc<Ledger>,
        member: usize,
        what: String,
    ) -> Verdict<Self> {
        let Started {
            child,
            orders,
            reports: mut lines,
            path,
        } = Started::new(target.worker().await?)?;
        let (answered, answers) = mpsc::unbounded_channel();
        let (life, ledger) = (ledger.begins(member), Arc::clone(ledger));
        let may_end = Arc::new(AtomicBool::new(false));
        let (is_expected, who) = (Arc::clone(&may_end), what.clone());
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match line.parse::<Line>() {
                    Ok(event) => ledger.take(life, event),
                    // Nobody waits for it any more.
                    Err(_) => drop(answered.send(line)),
                }
            }
            ledger.ends(life);
            if !is_expected.load(Ordering::Relaxed) {
                ledger.wrong(format!("{who} (process {life}) has ended by itself"));
            }
        });
        Ok(Self {
            what,
            life,
            child,
            orders,
            answers,
            reading,
            may_end,
            path,
        })
    }

    /// Gives an order, and waits for the answer, which must begin with this word. Returns the rest.
    async fn order(&mut self, order: &str, word: &str, limit: Duration) -> Verdict<String> {
        let line = format!("{order}\n");
        let what = format!("{} is told to {order}", self.what);
        let told = self.orders.write_all(line.as_bytes()).await;
        told.because(&what)?;
        let answer = within(limit, &what, self.answers.recv()).await?;
        let answer = answer.ok_or_else(|| Failure::new(format!("{what}: it has ended")))?;
        let (first, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
        ensure!(first == word, "{what}, and says: {answer}");
        Ok(rest.to_owned())
    }

    fn signal(&self, signal: Signal) -> Verdict {
        send(&self.child, signal).because(&self.what)
    }

    /// Ends it where it stands, once all that it has printed is read.
    async fn kill(&mut self) -> Verdict {
        self.may_end.store(true, Ordering::Relaxed);
        self.child.kill().await.because(&self.what)?;
        let read = (&mut self.reading).await;
        read.because(&self.what)
    }
}

/// One worker: a process, and after that has been killed another one.
#[derive(Debug)]
pub(super) struct Member {
    number: usize,
    runner: Runner,
}

/// What every worker is told.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) seed: u64,
    pub(super) tasks: u32,
    pub(super) ttl: Duration,
    pub(super) resource: std::net::SocketAddr,
    pub(super) locks: Vec<String>,
}

/// Everybody who works in a run.
#[derive(Debug)]
pub(super) struct Crew {
    target: Arc<dyn Target>,
    ledger: Arc<Ledger>,
    orders: Orders,
    members: Vec<Member>,
}

/// The process with what the locks protect.
pub(super) async fn resource(
    target: &dyn Target,
    ledger: &Arc<Ledger>,
) -> Verdict<(Runner, std::net::SocketAddr)> {
    let mut runner = Runner::start(target, ledger, usize::MAX, "the resource".into()).await?;
    let address = runner.order("serve", "serves", LIMIT).await?;
    Ok((runner, address.parse()?))
}

/// Ends the resource, once all that it has printed is read.
pub(super) async fn close(mut resource: Runner) -> Verdict {
    resource.kill().await
}

impl Crew {
    pub(super) async fn start(
        target: Arc<dyn Target>,
        ledger: Arc<Ledger>,
        orders: Orders,
        count: usize,
    ) -> Verdict<Self> {
        let mut crew = Self {
            target,
            ledger,
            orders,
            members: Vec::new(),
        };
        for number in 0..count {
            let member = crew.recruit(number).await?;
            crew.members.push(member);
        }
        Ok(crew)
    }

    /// Another process. The servers may be on their knees just now, so that it cannot connect.
    async fn recruit(&self, number: usize) -> Verdict<Member> {
        let start = std::time::Instant::now();
        loop {
            match self.try_to_recruit(number).await {
                Ok(member) => return Ok(member),
                Err(failure) if start.elapsed() > 6 * LIMIT => return Err(failure),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn try_to_recruit(&self, number: usize) -> Verdict<Member> {
        let what = format!("worker p{number}");
        let mut runner = Runner::start(self.target.as_ref(), &self.ledger, number, what).await?;
        let Orders { ttl, seed, .. } = self.orders;
        let connect = format!("connect {} p{number}", ttl.as_millis());
        // If it ends by itself now, it could not connect.
        runner.may_end.store(true, Ordering::Relaxed);
        runner.order(&connect, "connected", 2 * LIMIT).await?;
        runner.may_end.store(false, Ordering::Relaxed);
        let brief = Brief {
            process: runner.life,
            seed: seed ^ (u64::from(runner.life) << 32),
            tasks: self.orders.tasks,
            resource: self.orders.resource,
            longest: ttl / 4,
            locks: self.orders.locks.clone(),
        };
        let soak = format!("soak {}", brief.to_words());
        runner.order(&soak, "soaking", LIMIT).await?;
        Ok(Member { number, runner })
    }

    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    fn member(&mut self, number: usize) -> Verdict<&mut Member> {
        let missing = || Failure::new(format!("there is no worker p{number}"));
        self.members.get_mut(number).ok_or_else(missing)
    }

    /// The network between this worker and the store.
    pub(super) fn path(&mut self, number: usize) -> Verdict<Arc<dyn Path>> {
        let path = self.member(number)?.runner.path.clone();
        path.ok_or_else(|| Failure::new(format!("p{number}'s network cannot be broken")))
    }

    pub(super) fn has_paths(&self) -> bool {
        self.members
            .iter()
            .all(|member| member.runner.path.is_some())
    }

    pub(super) fn signal(&mut self, number: usize, signal: Signal) -> Verdict {
        self.member(number)?.runner.signal(signal)
    }

    pub(super) async fn kill(&mut self, number: usize) -> Verdict {
        self.member(number)?.runner.kill().await
    }

    /// Another process takes the place of the one that was killed.
    pub(super) async fn replace(&mut self, number: usize) -> Verdict {
        let member = self.recruit(number).await?;
        *self.member(number)? = member;
        Ok(())
    }

    pub(super) async fn order(&mut self, number: usize, order: &str, word: &str) -> Verdict {
        let member = self.member(number)?;
        member.runner.order(order, word, LIMIT).await?;
        Ok(())
    }

    /// Everybody comes to an end of what they are doing, and leaves.
    pub(super) async fn dismiss(&mut self) -> Verdict {
        let leaving = self.members.iter_mut().map(|member| async {
            let stopped = member.runner.order("stop", "stopped", 8 * LIMIT).await;
            stopped.because(format!("p{}", member.number))?;
            member.runner.kill().await
        });
        futures_util::future::try_join_all(leaving).await?;
        Ok(())
    }
}
