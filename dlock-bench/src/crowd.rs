//! Contenders that take locks one after the other, as fast as they get them: tasks that share a client,
//! clients of their own, or processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bench::Bench;
use crate::contestants::{Contestant, Locker};
use crate::counters::{Counts, Meter};
use crate::fault::{Fault, Verdict};
use crate::machine;
use crate::store::Place;
use crate::turns::{Turn, Turns};
use crate::worker::{Task, Worker};

/// What the contenders are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Tasks of this process that share one client.
    Tasks,
    /// Clients of this process, a task each.
    Clients,
    /// Processes, with a client each.
    Processes,
}

/// For how long they are watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) least: Duration,
    /// Not longer than this, whatever came of it.
    pub(crate) most: Duration,
    /// Otherwise until there were so many grants for each contender.
    pub(crate) turns: u64,
}

/// Contenders, and what they contend for.
pub(crate) struct Crowd {
    pub(crate) place: Place,
    pub(crate) who: Contestant,
    pub(crate) kind: Kind,
    pub(crate) count: usize,
    /// The locks: the contenders share them evenly.
    pub(crate) names: Vec<String>,
    pub(crate) window: Window,
    pub(crate) meter: Arc<Meter>,
}

/// What was seen in the window.
pub(crate) struct Seen {
    pub(crate) turns: Turns,
    /// Processor time of this process; not of others.
    pub(crate) cpu: Option<Duration>,
    /// What the server did, or why it does not tell.
    pub(crate) counts: Verdict<Counts>,
}

impl Crowd {
    /// So many of one kind for a lock that nobody has used.
    pub(crate) fn new(bench: &Bench, who: Contestant, kind: Kind, count: usize) -> Self {
        Self {
            place: bench.place.clone(),
            who,
            kind,
            count,
            names: vec![bench.fresh_name()],
            window: bench.plan.window,
            meter: Arc::clone(&bench.meter),
        }
    }

    pub(crate) async fn run(&self) -> Verdict<Seen> {
        let seen = match self.kind {
            Kind::Processes => self.processes().await,
            Kind::Tasks | Kind::Clients => self.here().await,
        }?;
        // A floor has one client, and several names have several holders.
        if self.names.len() == 1 && seen.turns.overlaps() > 0 {
            let count = seen.turns.overlaps();
            return Err(Fault::new(format!(
                "{count} grants while another one held the lock"
            )));
        }
        Ok(seen)
    }

    async fn here(&self) -> Verdict<Seen> {
        let clients = self.clients().await?;
        let (stop, stopped) = watch::channel(false);
        let count = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..self.count {
            let client = Arc::clone(&clients[number % clients.len()]);
            let name = self.names[number % self.names.len()].clone();
            let (stopped, count) = (stopped.clone(), Arc::clone(&count));
            tasks.spawn(async move { (number, contend(&*client, &name, stopped, count).await) });
        }
        let watched = self.watch(&count).await;
        stop.send_replace(true);
        let mut logs = vec![Vec::new(); self.count];
        let mut fault = None;
        while let Some(done) = tasks.join_next().await {
            match done? {
                (number, Ok(log)) => logs[number] = log,
                (_, Err(error)) => fault = Some(error),
            }
        }
        join_all(clients.iter().map(|client| client.close())).await;
        match fault {
            Some(fault) => Err(fault),
            None => Ok(watched.seen(&logs, Kind::Clients)),
        }
    }

    /// A few at a time: a server takes only so many new connections at once.
    async fn clients(&self) -> Verdict<Vec<Arc<dyn Locker>>> {
        let count = if self.kind == Kind::Tasks {
            1
        } else {
            self.count
        };
        let mut clients = Vec::with_capacity(count);
        while clients.len() < count {
            let some = (count - clients.len()).min(50);
            let connecting = (0..some).map(|_| self.who.client(&self.place));
            clients.extend(try_join_all(connecting).await?);
        }
        Ok(clients)
    }

    async fn processes(&self) -> Verdict<Seen> {
        let task = Task {
            place: self.place.clone(),
            name: self.names[0].clone(),
        };
        let starting = (0..self.count).map(|_| Worker::start(&self.who, &task));
        let mut workers = try_join_all(starting).await?;
        try_join_all(workers.iter_mut().map(|worker| worker.say("go"))).await?;
        let watched = self.watch(&AtomicU64::new(u64::MAX)).await;
        try_join_all(workers.iter_mut().map(|worker| worker.say("stop"))).await?;
        let logs = try_join_all(workers.into_iter().map(Worker::turns)).await?;
        Ok(watched.seen(&logs, Kind::Processes))
    }

    /// Lets them warm up, and looks at the clocks and counters before and after the window.
    async fn watch(&self, count: &AtomicU64) -> Watched {
        let contenders = self.count as u64;
        self.pass(self.window.least / 5, count, contenders).await;
        let before = self.meter.read(self.who.sends_commands).await;
        let (from, cpu) = (machine::now(), machine::cpu_time());
        let already = count.load(Ordering::Relaxed);
        let wanted = already.saturating_add(contenders * self.window.turns);
        self.pass(self.window.least, count, wanted).await;
        let (to, cpu) = (machine::now(), machine::cpu_time() - cpu);
        let after = self.meter.read(self.who.sends_commands).await;
        let counts = before.and_then(|before| Ok(after?.since(&before)));
        Watched {
            from,
            to,
            cpu,
            counts,
        }
    }

    /// At least this long, and until there were this many grants, but not for ever.
    async fn pass(&self, least: Duration, count: &AtomicU64, wanted: u64) {
        let begun = Instant::now();
        tokio::time::sleep(least).await;
        while count.load(Ordering::Relaxed) < wanted && begun.elapsed() < self.window.most {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Watched {
    from: u64,
    to: u64,
    cpu: Duration,
    counts: Verdict<Counts>,
}

impl Watched {
    fn seen(self, logs: &[Vec<Turn>], kind: Kind) -> Seen {
        Seen {
            turns: Turns::within(logs, self.from, self.to),
            cpu: (kind != Kind::Processes).then_some(self.cpu),
            counts: self.counts,
        }
    }
}

/// One contender, until it is told to stop.
pub(crate) async fn contend(
    client: &dyn Locker,
    name: &str,
    mut stopped: watch::Receiver<bool>,
    count: Arc<AtomicU64>,
) -> Verdict<Vec<Turn>> {
    let mut turns = Vec::new();
    loop {
        let asked = machine::now();
        let held = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(turns),
            held = client.lock(name) => held?,
        };
        let granted = machine::now();
        let releasing = machine::now();
        held.release().await?;
        count.fetch_add(1, Ordering::Relaxed);
        turns.push(Turn {
            asked,
            granted,
            releasing,
        });
        // A lock that is never waited for must not keep the runtime to itself.
        tokio::task::consume_budget().await;
    }
}
