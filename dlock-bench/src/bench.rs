//! What every measure has at hand while a run lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::contestants::{Contestant, Role};
use crate::counters::Meter;
use crate::crowd::Kind;
use crate::fault::{Context, Fault, Verdict};
use crate::peers::redis_py;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::sheet::{Point, Sheet};
use crate::store::Place;

/// Nobody is waited for longer.
const LIMIT: Duration = Duration::from_secs(60);

/// One run on one store.
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) place: Place,
    /// The same store, which has every write on its disk before it answers; or why there is none.
    pub(crate) durable: Verdict<Place>,
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) sheet: Sheet,
    pub(crate) progress: Progress,
    names: AtomicU64,
}

impl Bench {
    pub(crate) fn new(
        plan: Plan,
        place: Place,
        durable: Verdict<Place>,
        contestants: Vec<Contestant>,
        sheet: Sheet,
    ) -> Self {
        Self {
            plan,
            meter: Arc::new(Meter::new(place.clone())),
            place,
            durable,
            contestants,
            sheet,
            progress: Progress::default(),
            // Names of this run, also on a deployment where another run has left its own.
            names: AtomicU64::new(crate::machine::now() / 1_000),
        }
    }

    /// A lock that nobody has used. Without characters that a store would take for its own.
    pub(crate) fn fresh_name(&self) -> String {
        format!("bench-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// All who take part, each round beginning with another one, so that nobody is always first.
    pub(crate) fn in_turn(&self) -> Vec<Contestant> {
        let mut all = self.for_one_lock();
        all.retain(|who| who.role != Role::Variant);
        all
    }

    /// The same with those who are there for that alone.
    pub(crate) fn for_one_lock(&self) -> Vec<Contestant> {
        let mut all = self.contestants.clone();
        let shift = self.sheet.round % all.len().max(1);
        all.rotate_left(shift);
        all
    }

    /// All but the floor, which does not wait.
    pub(crate) fn who_wait(&self) -> Vec<Contestant> {
        let mut all = self.in_turn();
        all.retain(|who| who.role != Role::Floor || !self.place.store.has_network());
        all
    }

    /// Waits for a part of a measure, but not for ever, and writes down why it failed if it did.
    pub(crate) async fn attempt<T>(
        &mut self,
        point: &Point,
        who: &str,
        work: impl Future<Output = Verdict<T>>,
    ) -> Option<T> {
        self.progress.show(self.sheet.round, point, who);
        let done = tokio::time::timeout(LIMIT, work).await;
        match done.doing(format!("no result within {LIMIT:?}")) {
            Ok(Ok(value)) => Some(value),
            Ok(Err(fault)) | Err(fault) => {
                self.sheet.miss(point, who, &fault);
                None
            }
        }
    }

    /// Leaves out whoever cannot run here at all.
    pub(crate) async fn check(&mut self) {
        let python = self
            .contestants
            .iter()
            .any(|who| who.name == redis_py::CONTESTANT.name);
        if !python {
            return;
        }
        if let Err(fault) = redis_py::check().await {
            let everywhere = Point::new("everything", "", "", 0);
            self.sheet
                .miss(&everywhere, redis_py::CONTESTANT.name, &fault);
            self.contestants.retain(Contestant::is_here);
        }
    }

    /// Whether contestants of this kind can reach the store; if not, the sheet says so.
    pub(crate) fn reaches(&mut self, point: &Point, kind: Kind) -> bool {
        let reaches = kind != Kind::Processes || self.place.store.has_network();
        if !reaches {
            self.cannot(
                point,
                "all",
                "other processes cannot reach this process's memory",
            );
        }
        reaches
    }

    /// That this cannot be done on this store.
    pub(crate) fn cannot(&mut self, point: &Point, who: &str, reason: impl Into<String>) {
        self.sheet.miss(point, who, &Fault::new(reason));
    }
}
