//! A case: one promise, and a run that shows whether a store keeps it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::Verdict;
use crate::cases;
use crate::scene::Scene;
use crate::target::Need;

/// The ids of the contract's rules. A case is about one of them, or about its table of costs.
pub const RULES: [&str; 11] = [
    "LIVE-A",
    "LIVE-B",
    "ATOM-A",
    "ATOM-B",
    "FAIR",
    "FENCE",
    "CANCEL",
    "WAKE",
    "ONCE",
    "HONEST",
    "COMMITTED",
];

/// One case.
#[derive(Clone)]
pub struct Case {
    name: String,
    what: String,
    needs: Vec<Need>,
    pace: Pace,
    limit: Duration,
    kept: bool,
    run: Arc<dyn Fn(Scene) -> BoxFuture<'static, Verdict> + Send + Sync>,
}

/// Beside which others a case may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pace {
    /// Beside others of its kind: it is not about time.
    Any,
    /// Beside a few others of its kind, which leave the machine mostly idle: it is about time.
    Timed,
    /// By itself on its store: it counts what the store does, loads it, or breaks it.
    Alone,
}

impl Case {
    /// A case. Its name begins with the id of the contract's rule that it is about.
    pub fn new<R>(
        name: impl Into<String>,
        what: impl Into<String>,
        run: impl Fn(Scene) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = Verdict> + Send + 'static,
    {
        Self {
            name: name.into(),
            what: what.into(),
            needs: Vec::new(),
            pace: Pace::Any,
            limit: Duration::from_secs(60),
            kept: true,
            run: Arc::new(move |scene| run(scene).boxed()),
        }
    }

    /// It cannot run on a target that lacks this.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    /// Beside which others it may run.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// It looks at what a release does in the store: where clients keep their claims, that is nothing.
    #[must_use]
    pub fn not_kept(mut self) -> Self {
        self.kept = false;
        self
    }

    /// After how long it has failed: a minute unless another time is chosen.
    #[must_use]
    pub fn limit_to(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its name: `ATOM-A/EX-beside-PR`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it shows, in a sentence.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What it needs of the target.
    #[must_use]
    pub fn needed(&self) -> &[Need] {
        &self.needs
    }

    /// Beside which others it may run.
    #[must_use]
    pub fn paced(&self) -> Pace {
        self.pace
    }

    /// Whether it says something also where clients keep their claims.
    #[must_use]
    pub fn is_for_kept(&self) -> bool {
        self.kept
    }

    /// After how long it has failed.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Runs it. The rules that hold for every history are not checked here; the
    /// [runner](crate::runner) does.
    pub async fn run(&self, scene: Scene) -> Verdict {
        (self.run)(scene).await
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("needs", &self.needs)
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

/// Every case, in the order in which they run best: those that run side by side first, those that run
/// alone last.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = cases::all();
    cases.sort_by_key(Case::paced);
    cases
}
