//! What the scenarios share: the scheduler, a store that is a way off, and waiting for it to be empty.

use std::sync::Arc;
use std::time::Duration;

use dlock_interleaved::memory::{MemoryLink, MemoryStore};
use dlock_interleaved::{
    Attempts, Backend, Capabilities, Claim, Client, LockName, LockSnapshot, Mailbox, ManualClock,
    Opened, Outcome, Session, SessionTerms, StoreError, Wait, async_trait,
};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, MaxSteps, Runner};
use tokio::task::yield_now;

/// The lock of every scenario.
pub(crate) const NAME: &str = "n";

/// How many schedules a scenario is run in.
const SCHEDULES: usize = 2000;
/// Longer than any run; a task that spins for something that never comes fails here.
const STEPS: usize = 50_000;

/// How often everybody else may have gone on, when something is to happen by itself.
const SPINS: usize = 2000;

/// Runs the scenario in many schedules: in each, every use of a lock, a channel or a task is a place
/// where another task may go on, and who does is chosen at random. Much the same ones each time, unless
/// `DLOCK_SCHEDULES` says how many others. A scenario in which everybody waits fails too: a wake-up was
/// lost.
pub(crate) fn explore<F: Future<Output = ()> + 'static>(
    scenario: impl Fn(Scene) -> F + Copy + Send + Sync + 'static,
) {
    let asked = std::env::var("DLOCK_SCHEDULES").ok();
    let asked = asked.map(|number| number.parse().unwrap());
    let count = asked.unwrap_or(SCHEDULES);
    let seed = match asked {
        Some(_) => fastrand::u64(..),
        None => 1,
    };
    run(RandomScheduler::new_from_seed(seed, count), scenario);
}

fn run<F: Future<Output = ()> + 'static>(
    scheduler: RandomScheduler,
    scenario: impl Fn(Scene) -> F + Copy + Send + Sync + 'static,
) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || {
        // What the core and `select!` choose at random is the same whenever a schedule is repeated.
        fastrand::seed(1);
        shuttle::future::block_on(scenario(Scene::new()));
    });
}

/// A number below this one, which the schedule chooses.
pub(crate) fn random(below: u32) -> u32 {
    thread_rng().gen_range(0..below)
}

/// Lets the others go on for a while: how long, the schedule chooses, so that what comes next meets them
/// anywhere on their way.
pub(crate) async fn a_while() {
    for _ in 0..random(30) {
        yield_now().await;
    }
}

/// One store, and a clock that stands still until the scenario moves it.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) clock: ManualClock,
    pub(crate) store: MemoryStore,
}

impl Scene {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        Self { clock, store }
    }

    /// A client, and its way to the store.
    pub(crate) async fn client(&self) -> (Client, MemoryLink) {
        let link = self.store.link();
        let clock = Arc::new(self.clock.clone());
        let client = Client::builder(Far(link.clone())).clock(clock);
        (client.connect().await.unwrap(), link)
    }

    /// Nobody is left in the lock.
    pub(crate) async fn is_free(&self) -> bool {
        let names = self.store.link().names().await.unwrap();
        names.is_empty()
    }

    /// Returns when nobody is left in the lock, without anybody's help and without time going by.
    pub(crate) async fn becomes_free(&self) {
        for _ in 0..SPINS {
            if self.is_free().await {
                return;
            }
            yield_now().await;
        }
        panic!("somebody is left: {:?}", self.store);
    }
}

/// A store to which every question and every answer has a way to go, on which it can be overtaken.
#[derive(Clone, Debug)]
struct Far<S>(S);

async fn there_and_back<T>(operation: impl Future<Output = T>) -> T {
    yield_now().await;
    let result = operation.await;
    yield_now().await;
    result
}

#[async_trait]
impl Backend for Far<MemoryLink> {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let opened = there_and_back(self.0.open(terms, mailbox)).await?;
        Ok(Opened {
            session: Arc::new(Far(opened.session)),
            ttl: opened.ttl,
        })
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        there_and_back(self.0.inspect(name)).await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        there_and_back(self.0.names()).await
    }
}

#[async_trait]
impl Session for Far<Arc<dyn Session>> {
    async fn renew(&self) -> Result<Duration, StoreError> {
        there_and_back(self.0.renew()).await
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        there_and_back(self.0.request(claim, wait)).await
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        there_and_back(self.0.status(claim)).await
    }

    fn pushes_contended(&self) -> bool {
        self.0.pushes_contended()
    }

    async fn listen(&self, claim: &Claim) -> Result<(), StoreError> {
        there_and_back(self.0.listen(claim)).await
    }

    fn replaces(&self) -> bool {
        self.0.replaces()
    }

    fn order_step(&self) -> u64 {
        self.0.order_step()
    }

    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        there_and_back(self.0.replace(leaving, claim)).await
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        there_and_back(self.0.withdraw(claim, attempts)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        there_and_back(self.0.close()).await
    }
}
