//! The coordinator of one lock name in one process: who of its tasks is served next, and from what.
//!
//! A state machine without I/O and without a clock of its own, in two layers. The [gate](gate::Gate)
//! says what the store is asked for the process's claims, and what counts as its answer. Above it,
//! each claim is a [turn](turn::Turn) that several tasks may share:
//!
//! - **Hand-over**: when a guard is released and another task of the process waits for the same mode,
//!   the claim is passed on to it, with the next token and without the store.
//! - **Sharing**: a request in a mode that is compatible with itself joins a claim that is held in it.
//! - **Keeping**: after the last release the claim stays for a while, if the user wants that.
//!
//! None of it goes past an earlier request that conflicts (FAIR). Within the process, a request joins
//! a turn only if no request between them waits in a conflicting mode. Between processes, the store says
//! when another session waits behind a claim: from then on, new requests make a turn of their own, with
//! a claim behind that session's. Those who came before are still served first. Others may be served
//! early from a claim that others wait for, a bounded number of times and for a bounded time; all the
//! while, they have their place in the store's queue.
//!
//! The process has at most one waiting claim in each mode: further turns in that mode are placed when
//! that one is granted.

mod gate;
mod keeping;
mod operation;
mod turn;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use gate::Failure;
use gate::{Gate, tell};
pub(crate) use operation::{Backoff, Next, Number, Operation};
pub(crate) use turn::UNHEARD as LONGEST_KEPT;
use turn::{News, Stage, Turn, Waiter, is_shared};

use crate::mutants::{Mutant, is_on};
use crate::sync::{AtomicBool, AtomicU64};
use crate::{Claim, FencingToken, LossReason, Mode, Moment, Outcome, StoreError, Wait};

/// What the tasks of a process may do with each other's claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) hand_over: bool,
    pub(crate) share: bool,
    /// How long a claim stays that nobody uses.
    pub(crate) keep: Duration,
    /// Whether the store has to be asked to tell that a claim is contended.
    pub(crate) listen: bool,
    /// Whether the store can withdraw a claim and request another in one operation.
    pub(crate) replace: bool,
    /// By how much the orders of grants are apart.
    pub(crate) order_step: u64,
}

impl Rules {
    /// Whether several requests in this mode may be served from one claim.
    fn join(&self, mode: Mode) -> bool {
        if is_shared(mode) {
            self.share
        } else {
            self.hand_over
        }
    }
}

/// A lock that was granted to one task.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) token: FencingToken,
    /// The turn to be [released](Coordinator::release).
    pub(crate) turn: Number,
    /// Set when another session waits behind it.
    pub(crate) contended: Arc<AtomicBool>,
}

/// What the caller of an acquire is told; `None` is "taken".
pub(crate) type Answer = Result<Option<Granted>, Failure>;

/// The answer to a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Now(Answer),
    /// Dropping it gives the request up; it is to be [cancelled](Coordinator::cancel) then.
    Later(oneshot::Receiver<Answer>),
}

/// When the store has confirmed that a claim is gone, or what ended it before.
pub(crate) type Confirmation = oneshot::Receiver<Result<(), LossReason>>;

#[derive(Debug)]
pub(crate) struct Coordinator {
    rules: Rules,
    gate: Gate,
    /// In the order in which they were begun.
    turns: Vec<Turn>,
    /// Claims that the store is asked for since they were last taken, for whoever keeps an index.
    placed: Vec<Number>,
    /// Claims that have gone, for the same.
    gone: Vec<Number>,
    numbers: Arc<AtomicU64>,
    /// When the session's task will look here again, as it knows or is about to be told.
    alarm: Option<Moment>,
    /// Whether the session's task has something to do that it does not know of.
    stirred: bool,
}

/// How a request is served without a claim of its own.
enum Join {
    /// From this turn, at once.
    Take(usize),
    /// From this turn, when it is granted or passed on.
    Queue(usize),
}

impl Coordinator {
    /// `numbers` is the last number that a claim or a request of the session has.
    pub(crate) fn new(backoff: Backoff, rules: Rules, numbers: Arc<AtomicU64>) -> Self {
        Self {
            rules,
            numbers,
            gate: Gate::new(backoff, rules.replace),
            turns: Vec::new(),
            placed: Vec::new(),
            gone: Vec::new(),
            alarm: None,
            stirred: false,
        }
    }

    /// A task of this process asks for the lock. `claim` makes a claim of this number, if the store is to
    /// be asked.
    pub(crate) fn request(
        &mut self,
        (number, mode, wait): (Number, Mode, Wait),
        claim: impl FnOnce() -> Claim,
        now: Moment,
    ) -> Reply {
        self.give_back_kept(mode, now);
        if wait == Wait::Never && self.is_taken(mode) {
            return Reply::Now(Ok(None));
        }
        let joined = self.joined(mode, wait, now);
        if self.rules.join(mode) {
            self.ask_for_news(mode, now);
        }
        if let Some(Join::Take(index)) = joined
            && let Some(granted) = self.turns[index].give()
        {
            return Reply::Now(Ok(Some(granted)));
        }
        let index = match joined {
            Some(Join::Queue(index)) => index,
            _ => self.begin(claim(), wait),
        };
        let (caller, answer) = oneshot::channel();
        let turn = &mut self.turns[index];
        let came_first = turn.is_held();
        turn.waiters.push_back(Waiter {
            number,
            caller,
            came_first,
        });
        self.settle(now);
        Reply::Later(answer)
    }

    /// Adds a turn, and returns its index.
    fn begin(&mut self, claim: Claim, wait: Wait) -> usize {
        let news = match self.rules.listen {
            true => News::Unasked,
            false => News::None,
        };
        self.turns.push(Turn::new(claim, wait, news));
        self.turns.len() - 1
    }

    /// Whether the process itself surely holds the lock, or waits for it, in a mode that conflicts.
    fn is_taken(&self, mode: Mode) -> bool {
        self.turns.iter().any(|turn| {
            let waits = !turn.waiters.is_empty() && self.gate.is_waiting(turn.number());
            turn.conflicts(mode) && (turn.is_in_use() || waits)
        })
    }

    /// The store is to tell whether another session waits, where tasks of the process would share.
    fn ask_for_news(&mut self, mode: Mode, now: Moment) {
        for turn in self.turns.iter_mut().filter(|turn| turn.mode() == mode) {
            if turn.asks_for_news(now) {
                self.gate.listen(turn.number());
                self.stirred = true;
            }
        }
    }

    /// How a request is served that comes now, if not by a turn of its own.
    fn joined(&self, mode: Mode, wait: Wait, now: Moment) -> Option<Join> {
        let is_left = |turn: &Turn| matches!(turn.stage, Stage::Leaving);
        let same = |turn: &Turn| turn.mode() == mode && !is_left(turn);
        let index = self.turns.iter().rposition(same)?;
        let turn = &self.turns[index];
        let mut others = self.turns.iter().enumerate().filter(|(at, _)| *at != index);
        // FAIR: nobody goes past an earlier request that conflicts.
        let goes_past = others.any(|(at, other)| {
            let is_between = at > index || turn.is_held();
            is_between && other.conflicts(mode) && !other.waiters.is_empty()
        });
        if goes_past && !is_on(Mutant::SharedPastWriter) {
            return None;
        }
        let may_queue = self.rules.join(mode) && wait == Wait::InTurn;
        let Some(hold) = turn.hold() else {
            return (may_queue && turn.is_awaited()).then_some(Join::Queue(index));
        };
        if hold.users == 0 && turn.may_be_lent(now) {
            return Some(Join::Take(index));
        }
        if !turn.is_open(now) {
            return None;
        }
        match (hold.users, is_shared(mode)) {
            (0, _) => None,
            (_, true) => self.rules.share.then_some(Join::Take(index)),
            (_, false) => may_queue.then_some(Join::Queue(index)),
        }
    }

    /// A request that waits is given up. (One that was granted meanwhile is
    /// [released](Coordinator::release).)
    pub(crate) fn cancel(&mut self, number: Number, now: Moment) {
        let waits = |turn: &Turn| turn.waiters.iter().any(|waiter| waiter.number == number);
        let Some(index) = self.turns.iter().position(waits) else {
            return;
        };
        let turn = &mut self.turns[index];
        turn.waiters.retain(|waiter| waiter.number != number);
        if turn.waiters.is_empty() && !turn.is_held() {
            self.leave(index, None);
        }
        self.settle(now);
    }

    /// A guard of this turn is gone: the lock goes to the next task, or back to the store (ATOM-B).
    /// Where that is to be waited for, the confirmation is returned.
    pub(crate) fn release(&mut self, turn: Number, now: Moment) -> Option<Confirmation> {
        let index = self.find(turn)?;
        self.turns[index].take_back();
        if self.turns[index].is_in_use() || self.pass_on(index, now) {
            return None;
        }
        let confirmation = self.end(index, now);
        self.settle(now);
        confirmation
    }

    /// Grants the turn, which nobody uses, to the next task that waits for it here.
    fn pass_on(&mut self, index: usize, now: Moment) -> bool {
        let turn = &mut self.turns[index];
        if is_shared(turn.mode()) || !self.rules.hand_over {
            return false;
        }
        if turn.may_be_passed_on(now) && turn.give_to_next() {
            return true;
        }
        while self.turns[index].may_be_lent(now)
            && let Some(next) = self.next_turn(index)
            && let Some(waiter) = self.turns[next].waiters.pop_front()
        {
            let turn = &mut self.turns[index];
            if turn.give_to(waiter) {
                if let Some(hold) = turn.hold_mut() {
                    hold.passed += 1;
                }
                return true;
            }
        }
        false
    }

    /// The turn in the same mode that comes after this one, if somebody waits for it, and nobody in a
    /// conflicting mode before.
    fn next_turn(&self, index: usize) -> Option<usize> {
        let mode = self.turns[index].mode();
        let mut waiting = (self.turns.iter().enumerate())
            .filter(|(_, turn)| !turn.waiters.is_empty() && turn.conflicts(mode));
        let (first, turn) = waiting.next()?;
        (turn.mode() == mode && turn.is_awaited()).then_some(first)
    }

    /// Nobody uses the turn, and it cannot be passed on: it is kept, or goes back.
    fn end(&mut self, index: usize, now: Moment) -> Option<Confirmation> {
        self.move_waiters(index);
        if self.stays(index, now) {
            return None;
        }
        let mode = self.turns[index].mode();
        let (confirmed, confirmation) = oneshot::channel();
        self.leave(index, Some(confirmed));
        // A place that was taken for those who have been served meanwhile.
        let idle = |turn: &Turn| turn.mode() == mode && turn.is_awaited();
        for index in 0..self.turns.len() {
            if idle(&self.turns[index]) && self.turns[index].waiters.is_empty() {
                self.leave(index, None);
            }
        }
        Some(confirmation)
    }

    /// Those who wait for this turn to be passed on wait for the next one in its mode instead, before
    /// those who came later.
    fn move_waiters(&mut self, index: usize) {
        let mut waiters = std::mem::take(&mut self.turns[index].waiters);
        if waiters.is_empty() {
            return;
        }
        let mode = self.turns[index].mode();
        let awaited = |turn: &Turn| turn.mode() == mode && turn.is_awaited();
        match self.turns.iter().position(awaited) {
            Some(next) => {
                waiters.append(&mut self.turns[next].waiters);
                self.turns[next].waiters = waiters;
            }
            None => {
                let mut claim = Claim::clone(&self.turns[index].claim);
                claim.id.number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
                let next = self.begin(claim, Wait::InTurn);
                self.turns[next].waiters = waiters;
            }
        }
    }

    /// Has the turn's claim taken out.
    fn leave(&mut self, index: usize, confirmed: Option<oneshot::Sender<Result<(), LossReason>>>) {
        let turn = &mut self.turns[index];
        let is_unplaced = matches!(turn.stage, Stage::Unplaced);
        turn.stage = Stage::Leaving;
        let number = turn.number();
        if is_unplaced {
            self.gone.push(number);
            tell(confirmed, Ok(()));
        } else {
            self.stirred |= self.gate.withdraw(number, confirmed);
        }
    }

    /// What to do now. An operation that is returned counts as on its way.
    pub(crate) fn next(&mut self, now: Moment) -> Next {
        self.give_back_overdue(now);
        self.settle(now);
        let next = self.gate.next(now);
        let kept = self.turns.iter().filter_map(Turn::kept_until).min();
        self.alarm = match next {
            // It is asked again when that is answered.
            Next::Perform(_) => None,
            Next::At(at) => Some(kept.map_or(at, |kept| kept.min(at))),
            Next::Nothing => kept,
        };
        match (next, self.alarm) {
            (Next::Perform(operation), _) => Next::Perform(operation),
            (_, Some(alarm)) => Next::At(alarm),
            (_, None) => Next::Nothing,
        }
    }

    /// The operation on its way has been answered, or given up.
    pub(crate) fn answered(
        &mut self,
        operation: &Operation,
        result: Result<Outcome, StoreError>,
        now: Moment,
    ) {
        let is_told = result.is_ok();
        self.gate.answered(operation, result, now);
        if let Operation::Listen(claim) = operation
            && let Some(index) = self.find(claim.id.number)
        {
            self.hears(index, is_told, now);
        }
        self.settle(now);
    }

    /// The store pushed: the claim is granted.
    pub(crate) fn push_granted(&mut self, number: Number, token: FencingToken, now: Moment) {
        self.gate.push_granted(number, token);
        self.settle(now);
    }

    /// The store pushed a hint: look (WAKE).
    pub(crate) fn push_changed(&mut self, number: Number, now: Moment) {
        self.gate.push_changed(number, now);
        self.settle(now);
    }

    /// The store pushed: another session waits behind this claim.
    pub(crate) fn push_contended(&mut self, number: Number, now: Moment) {
        let Some(index) = self.find(number) else {
            return;
        };
        let turn = &mut self.turns[index];
        turn.contended(now);
        if !turn.is_contended() {
            return;
        }
        if turn.kept_until().is_some() {
            self.leave(index, None);
        } else if turn.is_held() && turn.waiters.front().is_some_and(|first| !first.came_first) {
            // Whether they came before that session, nobody can say.
            self.move_waiters(index);
        }
        self.settle(now);
    }

    /// Brings the turns up to what the gate knows, and asks the store for those whose time has come.
    fn settle(&mut self, now: Moment) {
        for (number, answer) in self.gate.take_answers() {
            let Some(index) = self.find(number) else {
                continue;
            };
            match answer {
                Ok(Some(token)) => self.granted(index, token, now),
                Ok(None) => self.tell_all(index, &Ok(())),
                Err(failure) => self.tell_all(index, &Err(failure)),
            }
        }
        self.gone.extend(self.gate.take_gone());
        if !self.gone.is_empty() {
            self.turns
                .retain(|turn| !self.gone.contains(&turn.number()));
        }
        for index in 0..self.turns.len() {
            self.place(index, now);
        }
    }

    fn granted(&mut self, index: usize, token: FencingToken, now: Moment) {
        let turn = &mut self.turns[index];
        turn.granted(token, token.room(self.rules.order_step), now);
        if is_shared(turn.mode()) {
            for waiter in std::mem::take(&mut turn.waiters) {
                turn.give_to(waiter);
            }
        } else {
            turn.give_to_next();
        }
        let is_contended = turn.is_contended();
        // Whoever wanted it has gone (CANCEL).
        if !turn.is_in_use() {
            self.leave(index, None);
        } else if is_contended {
            self.move_waiters(index);
        }
    }

    /// The claim is not to be: "taken" for one that may not wait, or a failure.
    fn tell_all(&mut self, index: usize, result: &Result<(), Failure>) {
        self.turns[index].stage = Stage::Leaving;
        for waiter in std::mem::take(&mut self.turns[index].waiters) {
            let _ = waiter.caller.send(result.clone().map(|()| None));
        }
    }

    /// Has the store asked for a turn, unless another one in its mode waits there.
    fn place(&mut self, index: usize, now: Moment) {
        let turn = &self.turns[index];
        if !matches!(turn.stage, Stage::Unplaced) {
            return;
        }
        let (mode, wait) = (turn.mode(), turn.wait);
        let waits = |turn: &Turn| {
            turn.mode() == mode && turn.is_awaited() && matches!(turn.stage, Stage::Asked)
        };
        if self.rules.join(mode) && wait == Wait::InTurn && self.turns.iter().any(waits) {
            return;
        }
        let turn = &mut self.turns[index];
        turn.stage = Stage::Asked;
        self.placed.push(turn.number());
        self.gate.request(turn.claim.clone(), wait, now);
        self.stirred = true;
    }

    /// The session is over: everybody is told.
    pub(crate) fn lost(self, reason: LossReason) {
        for turn in self.turns {
            let waits = matches!(turn.stage, Stage::Asked);
            let failure = match waits && !self.gate.is_unplaced(turn.number()) {
                true => Failure::Lost(reason),
                false => Failure::NeverPlaced(reason),
            };
            for waiter in turn.waiters {
                let _ = waiter.caller.send(Err(failure.clone()));
            }
        }
        self.gate.lost(reason);
    }

    /// Whether nothing is left: the coordinator may be forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        self.turns.is_empty() && self.gate.is_idle()
    }

    /// Whether no withdraw is under way.
    pub(crate) fn is_drained(&self) -> bool {
        self.gate.is_drained()
    }

    /// The claims that the process holds for its guards.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Arc<Claim>> {
        let held = self.turns.iter().filter(|turn| turn.is_in_use());
        held.map(|turn| &turn.claim)
    }

    /// The claim for which a request waits that was not answered yet.
    pub(crate) fn claim_of(&self, request: Number) -> Option<&Arc<Claim>> {
        let waits = |turn: &&Turn| turn.waiters.iter().any(|waiter| waiter.number == request);
        self.turns.iter().find(waits).map(|turn| &turn.claim)
    }

    /// Whether the claim is kept: the process has it, and none of its tasks uses it.
    pub(crate) fn is_kept(&self, claim: Number) -> bool {
        self.find(claim)
            .is_some_and(|index| self.turns[index].kept_until().is_some())
    }

    /// The claims that the store is asked for since this was last asked.
    pub(crate) fn take_placed(&mut self) -> Vec<Number> {
        std::mem::take(&mut self.placed)
    }

    /// The claims that have gone since this was last asked.
    pub(crate) fn take_gone(&mut self) -> Vec<Number> {
        std::mem::take(&mut self.gone)
    }

    /// Whether [`next`](Coordinator::next) has something new to say since this was last asked.
    pub(crate) fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    fn find(&self, number: Number) -> Option<usize> {
        self.turns.iter().position(|turn| turn.number() == number)
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod gate_tests;
#[cfg(test)]
#[path = "turns_tests.rs"]
mod turns_tests;
