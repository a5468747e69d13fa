//! What the suite needs of a store under test.
//!
//! Only [`Target::link`] is required. Each of the other methods lets more cases run; a case that
//! needs what a target lacks is reported as *ignored*, with the reason, never as passed.

use std::fmt::{self, Debug};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dlock_core::{Backend, async_trait};

use crate::{Failure, Verdict};

/// A store under test.
///
/// The suite calls it from a runtime of each case's own: a connection that it makes in
/// [`link`](Target::link) lives as long as that case.
#[async_trait]
pub trait Target: Debug + Send + Sync + 'static {
    /// What the report calls it: `redis-8.0`.
    fn name(&self) -> &str;

    /// A fresh connection to the store, as one more client process would have it. All links of a
    /// target reach the same namespace of the same store.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when the store cannot be reached: every case fails then.
    async fn link(&self) -> Verdict<Link>;

    /// Why cases with this need cannot run here; `None` if they can. Asked before the store is
    /// started.
    fn lacks(&self, need: Need) -> Option<String> {
        Some(format!("{} has no {need}", self.name()))
    }

    /// [`Need::Processes`]: how to start another process, which runs
    /// [`worker::run`](crate::worker::run) with a backend that reaches the same namespace.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it has none.
    async fn worker(&self) -> Verdict<Worker> {
        Err(missing(self, Need::Processes))
    }

    /// [`Need::Wipe`]: loses all of the store's data, as a crash without persistence would.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot.
    async fn wipe(&self) -> Verdict {
        Err(missing(self, Need::Wipe))
    }

    /// [`Need::Rollback`]: keeps a copy of the store's data, as a replica that falls behind from now on has it.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot.
    async fn keep_copy(&self) -> Verdict {
        Err(missing(self, Need::Rollback))
    }

    /// [`Need::Rollback`]: the store goes on from the copy, as after a failover to that replica.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot.
    async fn fail_over(&self) -> Verdict {
        Err(missing(self, Need::Rollback))
    }

    /// [`Need::Meter`]: what the store's own counters say, and what they should.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it has none.
    fn meter(&self) -> Verdict<Arc<dyn Meter>> {
        Err(missing(self, Need::Meter))
    }

    /// [`Need::Unconfirmable`]: a link that asks for a durability which the store cannot give now,
    /// such as a copy on a replica that does not exist.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when there is no such setting.
    async fn unconfirmable(&self) -> Verdict<Link> {
        Err(missing(self, Need::Unconfirmable))
    }

    /// [`Need::Servers`], [`Need::Nodes`]: the servers that the store is.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when they cannot be broken.
    fn nodes(&self) -> Verdict<Arc<dyn Nodes>> {
        Err(missing(self, Need::Servers))
    }

    /// Ends what was started for the cases. Called once, after the last of them.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when something of it is left.
    async fn stop(&self) -> Verdict {
        Ok(())
    }
}

fn missing(target: &(impl Target + ?Sized), need: Need) -> Failure {
    Failure::new(format!("{} has no {need}", target.name()))
}

/// What a case may need beyond a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Other processes that reach the store: [`Target::worker`].
    Processes,
    /// Losing the store's data: [`Target::wipe`].
    Wipe,
    /// Losing the newest writes, which were acknowledged: [`Target::keep_copy`], [`Target::fail_over`].
    Rollback,
    /// The store's own counters: [`Target::meter`].
    Meter,
    /// Counters of the steps inside the store: [`Counts::steps`].
    Steps,
    /// A durability that the store cannot give: [`Target::unconfirmable`].
    Unconfirmable,
    /// A server that can fail: [`Target::nodes`].
    Servers,
    /// Several servers, one of which can fail: [`Target::nodes`].
    Nodes,
}

impl Need {
    /// All of them.
    pub const ALL: [Need; 8] = [
        Need::Processes,
        Need::Wipe,
        Need::Rollback,
        Need::Meter,
        Need::Steps,
        Need::Unconfirmable,
        Need::Servers,
        Need::Nodes,
    ];
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Need::Processes => "way for other processes to reach it",
            Need::Wipe => "way to lose its data",
            Need::Rollback => "way to lose writes that it has acknowledged",
            Need::Meter => "counters of its operations",
            Need::Steps => "counters of the steps inside it",
            Need::Unconfirmable => "durability that it could fail to give",
            Need::Servers => "server to break",
            Need::Nodes => "servers to lose one of",
        })
    }
}

/// One client process's connection to the store.
#[derive(Clone, Debug)]
pub struct Link {
    /// The connection.
    pub backend: Arc<dyn Backend>,
    /// The network between the client and the store, where the target controls it. Where it does
    /// not, the suite puts its faults between the core and the backend
    /// ([`Wire`](crate::wrap::Wire)).
    pub path: Option<Arc<dyn Path>>,
}

impl Link {
    /// A link whose network the suite cannot touch.
    pub fn new(backend: impl Backend) -> Self {
        Self {
            backend: Arc::new(backend),
            path: None,
        }
    }

    /// The same link, with its network path.
    #[must_use]
    pub fn over(mut self, path: Arc<dyn Path>) -> Self {
        self.path = Some(path);
        self
    }
}

/// How another process is started that uses the store.
#[derive(Debug)]
pub struct Worker {
    /// What starts it.
    pub command: Command,
    /// The network between it and the store, where the target controls it: fault runs break it.
    pub path: Option<Arc<dyn Path>>,
}

impl Worker {
    /// A process whose network the suite cannot touch.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self {
            command,
            path: None,
        }
    }
}

/// The network path of one [`Link`].
pub trait Path: Debug + Send + Sync + 'static {
    /// Changes its condition, at once and for connections that exist and that will.
    fn set(&self, condition: Condition);

    /// How many connections (or requests) have something held back on them.
    fn kept(&self) -> usize;

    /// Lets go what was held back, whatever the condition is now.
    fn deliver(&self);
}

/// The condition of a [`Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Everything passes.
    Clear,
    /// Connections are reset, new ones are refused.
    Refused,
    /// Nothing passes in either direction. Connections stay open and nobody is told.
    Cut,
    /// What is sent to the store vanishes; what the store sends passes.
    CutToStore,
    /// The store receives everything; its replies and pushes vanish.
    CutFromStore,
    /// What is sent to the store now is kept back, and arrives when it is
    /// [delivered](Path::deliver), even if the path is clear and the client has closed its side
    /// meanwhile. Connections that are opened after this condition pass.
    Held,
    /// Everything passes, later.
    Slow {
        /// The delay towards the store.
        to_store: Duration,
        /// The delay of what the store sends.
        from_store: Duration,
    },
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Clear => f.write_str("clear"),
            Condition::Refused => f.write_str("refusing connections"),
            Condition::Cut => f.write_str("cut in both directions"),
            Condition::CutToStore => f.write_str("cut towards the store"),
            Condition::CutFromStore => f.write_str("cut from the store"),
            Condition::Held => f.write_str("holding requests back"),
            Condition::Slow {
                to_store,
                from_store,
            } => write!(f, "{to_store:?} to the store, {from_store:?} back"),
        }
    }
}

/// The servers of a store, to be harmed: those of a cluster, or the only one.
#[async_trait]
pub trait Nodes: Debug + Send + Sync + 'static {
    /// How many there are. They are numbered from 0.
    fn count(&self) -> usize;

    /// The one that decides about locks now.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when there is none.
    async fn leader(&self) -> Verdict<usize>;

    /// Does this to a node.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot be done.
    async fn harm(&self, node: usize, harm: Harm) -> Verdict;

    /// Undoes it.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot be undone.
    async fn heal(&self, node: usize, harm: Harm) -> Verdict;

    /// Waits until every node takes part again.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when one does not within a minute.
    async fn whole(&self) -> Verdict;

    /// How long the others may take, with their settings, to notice that their leader has gone and
    /// to elect another one.
    fn election(&self) -> Duration;

    /// A known limit: whether a leader that stood still for longer than a lease may end that lease when
    /// it goes on, although another leader has renewed it since.
    fn ends_renewed_leases(&self) -> bool {
        false
    }
}

/// What can happen to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It ends where it stands, and keeps its files.
    Killed,
    /// It stands still. Its connections stay open.
    Frozen,
    /// It cannot reach the other servers, nor they it. Clients reach all of them.
    CutOff,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Harm::Killed => "killed",
            Harm::Frozen => "frozen",
            Harm::CutOff => "cut off from the others",
        })
    }
}

/// The store's own counters, read from the store and not from the client.
#[async_trait]
pub trait Meter: Debug + Send + Sync + 'static {
    /// The counters now.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when they cannot be read.
    async fn read(&self) -> Verdict<Counts>;

    /// What each operation should cost on this store, by the contract's table.
    fn prices(&self) -> Prices;
}

/// A reading of a [`Meter`]: totals since some moment in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of clients that read or change locks or leases: script calls, transactions, writes.
    pub requests: u64,
    /// Pushes that the store sent to clients.
    pub pushes: u64,
    /// Changes of the store's data, where the store counts them.
    pub changes: Option<u64>,
    /// Steps inside the store, which show the work that a request made, where the store counts them.
    pub steps: Option<u64>,
}

impl std::ops::Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        let less = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Counts {
            requests: self.requests.saturating_sub(earlier.requests),
            pushes: self.pushes.saturating_sub(earlier.pushes),
            changes: less(self.changes, earlier.changes),
            steps: less(self.steps, earlier.steps),
        }
    }
}

/// What operations should cost, in [`Counts::requests`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Acquiring a free lock.
    pub acquire: u64,
    /// Acquiring a free lock of which the client knows nothing yet.
    pub first_acquire: u64,
    /// Acquiring a lock by waiting, up to and including the place in the queue.
    pub enqueue: u64,
    /// Learning of the grant after the push.
    pub take_over: u64,
    /// The same after waiting behind several others: at most.
    pub take_over_in_a_queue: u64,
    /// Releasing.
    pub release: u64,
    /// Giving a lock back and asking for it anew at once, when nobody else wants it.
    pub anew: u64,
    /// A try on a lock that is held.
    pub refused_try: u64,
    /// The most requests that one heartbeat may make, however many locks the session holds.
    pub heartbeat: u64,
}
