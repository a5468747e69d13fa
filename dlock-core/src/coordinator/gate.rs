//! The gate of one lock name in one process: the order of what the store is asked, and what counts as
//! its answer.
//!
//! A state machine without I/O and without a clock of its own. Every claim of this process for the name
//! passes through it, and the session's task performs what it says:
//!
//! - **Input gate**: at most one operation on the name is on its way to the store. Withdraws go first
//!   (a release never stands behind a crowd of requests), then requests and looks at waiting
//!   claims, in the order in which they fell due. No request goes before an older one: while that one
//!   waits to be repeated, so do the younger ones (FAIR).
//!   Where the store can do that, a withdraw takes the next request with it: one operation.
//! - **Output gate**: a claim is settled only when the store has answered, and only while the
//!   session stands. Nothing is concluded from a failed attempt: the claim is asked about again,
//!   by its id, or withdrawn (ONCE).
//!
//! ```text
//!              answered: waiting          granted (answer, look or push)
//!   Requested ──────────────────► Waiting ───────────────────────────────► Granted
//!       │  ▲                        │ │                                       │
//!       │  └── look: not there ─────┘ │ nobody wants it any more              │ nobody holds it any more
//!       │  left before sent: gone     ▼                                       ▼
//!       └─────────────────────────► Leaving ──── withdraw confirmed ───────► gone
//! ```
//!
//! A claim whose request was never answered leaves with [`Attempts::Unanswered`], for as long as it
//! lives: a later answer does not call back the earlier copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::operation::{Backoff, Next, Number, Operation};
use crate::mutants::{Mutant, is_on};
use crate::{
    Attempts, Claim, FencingToken, LossReason, Moment, Outcome, StoreError, StoreErrorKind, Wait,
};

/// WAKE: a waiting claim is looked at this often even if the store knows no reason to.
pub(super) const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(3);

/// A store that asks for a look at once would be asked without a pause.
pub(super) const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(5);

/// What became of a request: the claim is granted with this token, or may not wait and is not granted.
pub(super) type Answer = Result<Option<FencingToken>, Failure>;

/// Why somebody gets neither a lock nor a "taken".
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Store(StoreError),
    /// The session is over, and with it the claim's place.
    Lost(LossReason),
    /// The session was over before the store had given the claim a place: nothing is lost by asking
    /// again in another session.
    NeverPlaced(LossReason),
}

#[derive(Debug)]
pub(super) struct Gate {
    backoff: Backoff,
    /// Whether the store can withdraw a claim and request another in one operation.
    replaces: bool,
    claims: BTreeMap<Number, Entry>,
    /// Withdraws that are to be sent, and when.
    withdraws: BTreeSet<(Moment, Number)>,
    /// Claims that are to be looked at, and when.
    looks: BTreeSet<(Moment, Number)>,
    /// Requests that are to be sent, the oldest first, and when.
    requests: BTreeMap<Number, Moment>,
    /// The claims of the operation on its way to the store: one that leaves, one that asks, or both.
    on_its_way: Option<(Number, Option<Number>)>,
    /// What has become of claims, for whoever asked for them.
    answers: Vec<(Number, Answer)>,
    /// Granted claims of which the store is to tell whether they are contended.
    listens: BTreeSet<Number>,
    /// Claims that are gone, for whoever keeps an index of them.
    gone: Vec<Number>,
}

#[derive(Debug)]
struct Entry {
    claim: Arc<Claim>,
    wait: Wait,
    stage: Stage,
    /// When the store is to be asked next, as it stands in the coordinator's index of its stage.
    due: Option<Moment>,
    /// Consecutive failed attempts.
    failures: u32,
    /// Whether a request for it was sent, and never answered.
    unanswered: bool,
    /// Whether the store hinted at a change while an operation was on its way.
    hinted: bool,
    /// Whether what becomes of it was told, or nobody wants to know any more.
    settled: bool,
    /// Who waits for the withdraw to be confirmed.
    leaving: Option<oneshot::Sender<Result<(), LossReason>>>,
}

impl Entry {
    /// Whether it is at this stage, and nothing that was asked for it has failed.
    fn is_fresh(&self, stage: Stage) -> bool {
        self.stage == stage && self.failures == 0 && !self.unanswered
    }
}

/// Where a claim stands: see the module's drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Requested,
    Waiting,
    Granted,
    Leaving,
}

impl Gate {
    pub(super) fn new(backoff: Backoff, replaces: bool) -> Self {
        Self {
            backoff,
            replaces,
            claims: BTreeMap::new(),
            withdraws: BTreeSet::new(),
            looks: BTreeSet::new(),
            requests: BTreeMap::new(),
            on_its_way: None,
            answers: Vec::new(),
            listens: BTreeSet::new(),
            gone: Vec::new(),
        }
    }

    /// Whether no claim is left.
    pub(super) fn is_idle(&self) -> bool {
        self.claims.is_empty()
    }

    /// Whether no withdraw is under way.
    pub(super) fn is_drained(&self) -> bool {
        self.claims
            .values()
            .all(|entry| entry.stage != Stage::Leaving)
    }

    /// What has become of claims since this was last asked.
    pub(super) fn take_answers(&mut self) -> Vec<(Number, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// The claims that have gone since this was last asked.
    pub(super) fn take_gone(&mut self) -> Vec<Number> {
        std::mem::take(&mut self.gone)
    }

    /// The store is to be asked for this claim.
    pub(super) fn request(&mut self, claim: Arc<Claim>, wait: Wait, now: Moment) {
        let number = claim.id.number;
        let entry = Entry {
            claim,
            wait,
            stage: Stage::Requested,
            due: None,
            failures: 0,
            unanswered: false,
            hinted: false,
            settled: false,
            leaving: None,
        };
        self.claims.insert(number, entry);
        self.ask(number, Stage::Requested, now);
    }

    /// The claim has to go (ATOM-B). `confirmed` is told when it is gone. Returns whether the store is to
    /// be asked.
    pub(super) fn withdraw(
        &mut self,
        number: Number,
        confirmed: Option<oneshot::Sender<Result<(), LossReason>>>,
    ) -> bool {
        let Some(entry) = self.claims.get_mut(&number) else {
            tell(confirmed, Ok(()));
            return false;
        };
        entry.settled = true;
        entry.leaving = confirmed;
        if self.is_unsent(number) {
            self.remove(number);
            return false;
        }
        self.ask(number, Stage::Leaving, Moment::default());
        true
    }

    /// Whether the store has surely not heard of the claim.
    pub(super) fn is_unsent(&self, number: Number) -> bool {
        let entry = self.claims.get(&number);
        entry.is_some_and(|entry| entry.is_fresh(Stage::Requested)) && !self.is_on_its_way(number)
    }

    /// The store is to tell whether this granted claim is contended: before it is asked for others, which may
    /// not be needed then.
    pub(super) fn listen(&mut self, number: Number) {
        self.listens.insert(number);
    }

    /// What to do now. An operation that is returned counts as on its way.
    pub(super) fn next(&mut self, now: Moment) -> Next {
        if self.on_its_way.is_some() {
            return Next::Nothing;
        }
        let withdraw = self.withdraws.first().copied();
        let look = self.looks.first().copied();
        let request = self
            .requests
            .first_key_value()
            .map(|(number, due)| (*due, *number));
        // Of requests and looks the one that fell due first: neither can hold up the other.
        let next = [withdraw, request.into_iter().chain(look).min()];
        if withdraw.is_none_or(|(due, _)| due > now)
            && let Some(number) = self.listens.pop_first()
            && let Some(entry) = self.claims.get(&number)
        {
            self.on_its_way = Some((number, None));
            return Next::Perform(Operation::Listen(entry.claim.clone()));
        }
        let Some(&(_, number)) = next.iter().flatten().find(|(due, _)| *due <= now) else {
            let earliest = next.iter().flatten().map(|(due, _)| *due).min();
            return earliest.map_or(Next::Nothing, Next::At);
        };
        let entering = self.entering(number, now);
        self.on_its_way = Some((number, entering));
        Next::Perform(match entering {
            Some(entering) => {
                let (leaving, entering) = (&self.claims[&number], &self.claims[&entering]);
                Operation::Replace(leaving.claim.clone(), entering.claim.clone())
            }
            None => self.operation(number),
        })
    }

    /// The claim that asks in the same operation in which this one leaves. Only where both are asked of
    /// the store for the first time: after a failure each goes by itself.
    fn entering(&self, leaving: Number, now: Moment) -> Option<Number> {
        let (number, due) = self.requests.first_key_value()?;
        let is_next = self.replaces
            && *due <= now
            && self.claims[&leaving].is_fresh(Stage::Leaving)
            && self.claims[number].is_fresh(Stage::Requested)
            && self.claims[number].wait == Wait::InTurn;
        is_next.then_some(*number)
    }

    fn is_on_its_way(&self, number: Number) -> bool {
        self.on_its_way
            .is_some_and(|(first, second)| first == number || second == Some(number))
    }

    fn operation(&self, number: Number) -> Operation {
        let entry = &self.claims[&number];
        let claim = entry.claim.clone();
        match entry.stage {
            Stage::Requested => Operation::Request(claim, entry.wait),
            Stage::Waiting | Stage::Granted => Operation::Look(claim),
            Stage::Leaving if entry.unanswered => Operation::Withdraw(claim, Attempts::Unanswered),
            Stage::Leaving => Operation::Withdraw(claim, Attempts::Answered),
        }
    }

    /// The operation on its way has been answered, or given up.
    pub(super) fn answered(
        &mut self,
        operation: &Operation,
        result: Result<Outcome, StoreError>,
        now: Moment,
    ) {
        self.on_its_way = None;
        match operation {
            Operation::Listen(_) => return,
            // Each is told what it would be told alone.
            Operation::Replace(leaving, claim) => {
                let left = match is_on(Mutant::HalfReplacement) {
                    true => Ok(Outcome::Absent),
                    false => result.clone(),
                };
                self.withdrawn(leaving.id.number, left, now);
                let request = Operation::Request(claim.clone(), Wait::InTurn);
                return self.answered(&request, result, now);
            }
            _ => {}
        }
        let number = operation.claim().id.number;
        let Some(entry) = self.claims.get_mut(&number) else {
            return;
        };
        let requested = matches!(operation, Operation::Request(..));
        if requested
            && let Err(error) = &result
            && error.kind() == StoreErrorKind::Ambiguous
        {
            entry.unanswered = !is_on(Mutant::GuessedOutcome);
        }
        match (operation, entry.stage) {
            (Operation::Withdraw(..), _) => self.withdrawn(number, result, now),
            // The caller left meanwhile. What was asked last still decides whether there is
            // anything to withdraw.
            (_, Stage::Leaving) => {
                let absent = matches!(&result, Ok(Outcome::Absent));
                let refused = matches!(&result, Err(error) if error.never_took_effect());
                if (absent || (refused && requested && entry.failures == 0)) && !entry.unanswered {
                    self.remove(number);
                }
            }
            // A push was faster than the answer.
            (_, Stage::Granted) => {}
            (_, Stage::Requested | Stage::Waiting) => match result {
                Ok(outcome) => self.told(number, outcome, now, requested),
                Err(error) => self.failed(number, error, now),
            },
        }
    }

    fn withdrawn(&mut self, number: Number, result: Result<Outcome, StoreError>, now: Moment) {
        match result {
            Ok(_) => self.remove(number),
            // It took effect; how durably does not matter.
            Err(error) if error.kind() == StoreErrorKind::Unconfirmed => self.remove(number),
            Err(_) if is_on(Mutant::SingleWithdraw) => self.remove(number),
            Err(_) => self.again(number, now),
        }
    }

    fn told(&mut self, number: Number, outcome: Outcome, now: Moment, requested: bool) {
        let Some(entry) = self.claims.get_mut(&number) else {
            return;
        };
        entry.failures = 0;
        match outcome {
            Outcome::Granted { token } => self.granted(number, token),
            Outcome::Waiting { .. } if entry.wait == Wait::Never => {
                // A store that queues a request which may not wait: taken, and the place given up.
                self.tell(number, Ok(None));
                self.ask(number, Stage::Leaving, Moment::default());
            }
            Outcome::Waiting { .. } if is_on(Mutant::NeverLooks) => {
                self.settle(number, Stage::Waiting);
            }
            Outcome::Waiting { look_after } => {
                let wait = match std::mem::take(&mut entry.hinted) {
                    true => Duration::ZERO,
                    false => look_after
                        .unwrap_or(LOOK_AT_LEAST_EVERY)
                        .clamp(LOOK_AT_MOST_EVERY, LOOK_AT_LEAST_EVERY),
                };
                self.ask(number, Stage::Waiting, now + wait);
            }
            // It may not wait, and the lock is taken.
            Outcome::Absent if entry.wait == Wait::Never => self.dismiss(number, Ok(None)),
            // It never arrived, or was taken out by hand: ask for it again.
            Outcome::Absent if !requested => {
                self.settle(number, Stage::Requested);
                self.again(number, now);
            }
            Outcome::Absent => {
                let error = StoreError::refused("the store has the claim down as withdrawn");
                self.dismiss(number, Err(Failure::Store(error)));
            }
        }
    }

    fn failed(&mut self, number: Number, error: StoreError, now: Moment) {
        match error.kind() {
            StoreErrorKind::Ambiguous | StoreErrorKind::Unavailable => self.again(number, now),
            // The session's task ends the session, and with it every claim.
            StoreErrorKind::Lapsed => {}
            StoreErrorKind::Refused | StoreErrorKind::Unconfirmed => {
                let clean = error.never_took_effect();
                let Some(entry) = self.claims.get_mut(&number) else {
                    return;
                };
                let gone = clean && entry.stage == Stage::Requested && !entry.unanswered;
                self.tell(number, Err(Failure::Store(error)));
                if gone {
                    self.remove(number);
                } else {
                    self.ask(number, Stage::Leaving, Moment::default());
                }
            }
        }
    }

    /// Answers the caller of a claim that is not to be, and takes out what an earlier copy of the
    /// request may yet bring (ONCE).
    fn dismiss(&mut self, number: Number, answer: Answer) {
        let Some(entry) = self.claims.get_mut(&number) else {
            return;
        };
        let unanswered = entry.unanswered;
        self.tell(number, answer);
        if unanswered {
            self.ask(number, Stage::Leaving, Moment::default());
        } else {
            self.remove(number);
        }
    }

    fn granted(&mut self, number: Number, token: FencingToken) {
        self.settle(number, Stage::Granted);
        self.tell(number, Ok(Some(token)));
    }

    fn tell(&mut self, number: Number, answer: Answer) {
        if let Some(entry) = self.claims.get_mut(&number)
            && !std::mem::replace(&mut entry.settled, true)
        {
            self.answers.push((number, answer));
        }
    }

    /// The store pushed: the claim is granted.
    pub(super) fn push_granted(&mut self, number: Number, token: FencingToken) {
        if self.is_pending(number) {
            self.granted(number, token);
        }
    }

    /// The store pushed a hint: look (WAKE).
    pub(super) fn push_changed(&mut self, number: Number, now: Moment) {
        if is_on(Mutant::HintIsGrant) {
            return self.push_granted(number, FencingToken::from_order((1 << 53) - 1));
        }
        if !self.is_pending(number) {
            return;
        }
        let is_on_its_way = self.is_on_its_way(number);
        let Some(entry) = self.claims.get_mut(&number) else {
            return;
        };
        if is_on_its_way {
            entry.hinted = true;
        } else if entry.stage == Stage::Waiting {
            self.ask(number, Stage::Waiting, now);
        }
    }

    /// The session is over: those who wait for a withdraw are told.
    pub(super) fn lost(self, reason: LossReason) {
        for (_, entry) in self.claims {
            tell(entry.leaving, Err(reason));
        }
    }

    /// Whether the store has given the claim a place behind others.
    pub(super) fn is_waiting(&self, number: Number) -> bool {
        self.claims
            .get(&number)
            .is_some_and(|entry| entry.stage == Stage::Waiting)
    }

    /// Whether the store has not yet said that it knows of the claim.
    pub(super) fn is_unplaced(&self, number: Number) -> bool {
        self.claims
            .get(&number)
            .is_none_or(|entry| entry.stage == Stage::Requested)
    }

    fn is_pending(&self, number: Number) -> bool {
        let stage = self.claims.get(&number).map(|entry| entry.stage);
        matches!(stage, Some(Stage::Requested | Stage::Waiting))
    }

    /// After a failure: the same once more, later.
    fn again(&mut self, number: Number, now: Moment) {
        let Some(entry) = self.claims.get_mut(&number) else {
            return;
        };
        entry.failures += 1;
        let (stage, wait) = (entry.stage, self.backoff.after(entry.failures));
        self.ask(number, stage, now + wait);
    }

    /// Puts the claim at this stage, and has the store asked at that time.
    fn ask(&mut self, number: Number, stage: Stage, at: Moment) {
        self.settle(number, stage);
        let Some(entry) = self.claims.get_mut(&number) else {
            return;
        };
        entry.due = Some(at);
        match stage {
            Stage::Requested => {
                self.requests.insert(number, at);
            }
            Stage::Waiting | Stage::Granted => {
                self.looks.insert((at, number));
            }
            Stage::Leaving => {
                self.withdraws.insert((at, number));
            }
        }
    }

    /// Puts the claim at this stage, and has the store asked nothing.
    fn settle(&mut self, number: Number, stage: Stage) {
        let Some(entry) = self.claims.get_mut(&number) else {
            return;
        };
        if let Some(due) = entry.due.take() {
            match entry.stage {
                Stage::Requested => {
                    self.requests.remove(&number);
                }
                Stage::Waiting | Stage::Granted => {
                    self.looks.remove(&(due, number));
                }
                Stage::Leaving => {
                    self.withdraws.remove(&(due, number));
                }
            }
        }
        entry.stage = stage;
    }

    fn remove(&mut self, number: Number) {
        self.settle(number, Stage::Granted);
        self.listens.remove(&number);
        if let Some(entry) = self.claims.remove(&number) {
            self.gone.push(number);
            tell(entry.leaving, Ok(()));
        }
    }
}

/// Tells somebody who may have stopped listening.
pub(super) fn tell<T>(listener: Option<oneshot::Sender<T>>, message: T) {
    if let Some(listener) = listener {
        let _ = listener.send(message);
    }
}
