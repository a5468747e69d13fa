//! Claims that stay with the process while none of its tasks uses them.

use super::turn::{Turn, Waiter, is_shared};
use super::{Coordinator, Mutant, is_on};
use crate::{Mode, Moment};

impl Coordinator {
    /// Keeps the turn, which nobody uses and which was not passed on, where that saves operations of the
    /// store: for a while, if the user wants that and nobody waits; or for those of the process who wait,
    /// until the store has said whether others do.
    pub(super) fn stays(&mut self, index: usize, now: Moment) -> bool {
        let turn = &self.turns[index];
        let mode = turn.mode();
        if turn.is_contended() || !turn.may_be_passed_on(now) {
            return false;
        }
        let until = if self.is_wanted(mode) {
            let may_be_passed_on = self.rules.hand_over && !is_shared(mode);
            if !may_be_passed_on || self.next_turn(index).is_none() {
                return false;
            }
            self.ask_for_news(mode, now);
            self.turns[index].news_due()
        } else if self.rules.keep.is_zero() {
            None
        } else {
            self.ask_for_news(mode, now);
            Some(now + self.rules.keep)
        };
        let Some(until) = until.filter(|until| *until > now) else {
            return false;
        };
        let until = self.turns[index].keep(until);
        if self.alarm.is_none_or(|alarm| Some(alarm) > until) {
            self.stirred = true;
            self.alarm = until;
        }
        true
    }

    /// Whether a task waits that could not hold the lock beside this mode.
    fn is_wanted(&self, mode: Mode) -> bool {
        let wants = |turn: &Turn| turn.conflicts(mode) && !turn.waiters.is_empty();
        self.turns.iter().any(wants)
    }

    /// The store tells from now on whether others wait for the turn's claim; or will not.
    pub(super) fn hears(&mut self, index: usize, is_told: bool, now: Moment) {
        self.turns[index].hears(is_told);
        if let Some(next) = self.next_turn(index)
            && self.turns[index].is_open(now)
            && self.gate.is_unsent(self.turns[next].number())
        {
            // They need no place of their own: as far as the store knows, they came first.
            let waiters = std::mem::take(&mut self.turns[next].waiters);
            let first = waiters.into_iter().map(Waiter::came_first);
            self.turns[index].waiters.extend(first);
            self.leave(next, None);
        }
        let is_kept = self.turns[index].kept_until().is_some();
        if is_kept && self.is_wanted(self.turns[index].mode()) && !self.pass_on(index, now) {
            self.leave(index, None);
        }
    }

    /// A claim that nobody uses does not stand in the way of a request that it cannot serve.
    pub(super) fn give_back_kept(&mut self, mode: Mode, now: Moment) {
        for index in 0..self.turns.len() {
            let turn = &self.turns[index];
            let serves =
                turn.mode() == mode && (turn.may_be_lent(now) || turn.news_due() > Some(now));
            let is_in_the_way = turn.kept_until().is_some() && turn.conflicts(mode) && !serves;
            if is_in_the_way && !is_on(Mutant::KeptFromTasks) {
                self.leave(index, None);
            }
        }
    }

    /// Gives back what has been kept for long enough.
    pub(super) fn give_back_overdue(&mut self, now: Moment) {
        for index in 0..self.turns.len() {
            let due = self.turns[index].kept_until();
            if due.is_some_and(|due| due <= now) {
                self.leave(index, None);
            }
        }
    }
}
