//! A turn: one claim of the process in the store, and the tasks that share it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Answer, Granted, Number};
use crate::mutants::{Mutant, is_on};
use crate::sync::AtomicBool;
use crate::{Claim, FencingToken, Mode, Moment, Wait};

/// How often a claim is passed on to requests that came after the news that another session waits.
const PASSES: u32 = 64;
/// And for how long after that news.
const PASSING: Duration = Duration::from_millis(10);
/// How long a claim is passed on, shared or kept without any such news. The store's push may have been
/// lost, and whoever waits there must not wait for ever (WAKE).
pub(crate) const UNHEARD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Turn {
    pub(super) claim: Arc<Claim>,
    pub(super) wait: Wait,
    pub(super) stage: Stage,
    /// Who waits for this turn, or for it to be passed on: first come first.
    pub(super) waiters: VecDeque<Waiter>,
    /// When the store said that another session waits behind the claim.
    contended_at: Option<Moment>,
    /// The same for the guards.
    contended: Arc<AtomicBool>,
    news: News,
}

/// Whether it would be known that another session waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The store tells, and has said nothing.
    None,
    /// The store tells only if it is asked to.
    Unasked,
    /// It was asked at that time.
    Asked(Moment),
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The store is not asked yet: another turn in this mode waits there.
    Unplaced,
    /// The store is asked, or has the claim waiting.
    Asked,
    Held(Hold),
    /// The claim is being withdrawn.
    Leaving,
}

/// A turn whose claim the store has granted.
#[derive(Debug)]
pub(super) struct Hold {
    token: FencingToken,
    /// How many tokens there are to give out.
    room: u64,
    since: Moment,
    /// How many guards there are.
    pub(super) users: usize,
    /// How many tokens were given out.
    given: u64,
    /// How often it was passed on to a request that came after the news that it is contended.
    pub(super) passed: u32,
    /// Until when it stays with the process, while nobody uses it.
    pub(super) kept_until: Option<Moment>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) number: Number,
    pub(super) caller: oneshot::Sender<Answer>,
    /// Whether the turn was held when it came, and nobody else was known to wait: then it goes before
    /// whoever came later (FAIR).
    pub(super) came_first: bool,
}

impl Waiter {
    /// The same, known to have come before any other session.
    pub(super) fn came_first(self) -> Self {
        Self {
            came_first: true,
            ..self
        }
    }
}

/// Whether several guards may hold a claim in this mode together.
pub(super) fn is_shared(mode: Mode) -> bool {
    mode.compatible(mode)
}

impl Turn {
    pub(super) fn new(claim: Claim, wait: Wait, news: News) -> Self {
        Self {
            claim: Arc::new(claim),
            wait,
            stage: Stage::Unplaced,
            waiters: VecDeque::new(),
            contended_at: None,
            contended: Arc::default(),
            news,
        }
    }

    pub(super) fn number(&self) -> Number {
        self.claim.id.number
    }

    pub(super) fn mode(&self) -> Mode {
        self.claim.mode
    }

    pub(super) fn conflicts(&self, mode: Mode) -> bool {
        !self.mode().compatible(mode)
    }

    pub(super) fn hold(&self) -> Option<&Hold> {
        match &self.stage {
            Stage::Held(hold) => Some(hold),
            _ => None,
        }
    }

    pub(super) fn hold_mut(&mut self) -> Option<&mut Hold> {
        match &mut self.stage {
            Stage::Held(hold) => Some(hold),
            _ => None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.hold().is_some()
    }

    /// Whether there is a guard.
    pub(super) fn is_in_use(&self) -> bool {
        self.hold().is_some_and(|hold| hold.users > 0)
    }

    /// Until when it stays although nobody uses it.
    pub(super) fn kept_until(&self) -> Option<Moment> {
        self.hold()?.kept_until
    }

    /// Whether it is to be granted yet, and requests that wait may be added to it.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.stage, Stage::Unplaced | Stage::Asked) && self.wait == Wait::InTurn
    }

    /// Nobody uses it: it stays until then.
    pub(super) fn keep(&mut self, until: Moment) -> Option<Moment> {
        let hold = self.hold_mut()?;
        hold.kept_until = Some(until.min(hold.since + UNHEARD));
        hold.kept_until
    }

    /// The store has granted the claim.
    pub(super) fn granted(&mut self, token: FencingToken, room: u64, now: Moment) {
        self.stage = Stage::Held(Hold {
            token,
            room,
            since: now,
            users: 0,
            given: 0,
            passed: 0,
            kept_until: None,
        });
    }

    /// The store says that another session waits behind the claim.
    pub(super) fn contended(&mut self, now: Moment) {
        self.contended.store(true, Ordering::Relaxed);
        if !is_on(Mutant::Hoarding) {
            self.contended_at.get_or_insert(now);
        }
    }

    pub(super) fn is_contended(&self) -> bool {
        self.contended_at.is_some()
    }

    /// Whether the store is to be asked to tell of others. It is to be asked once.
    pub(super) fn asks_for_news(&mut self, now: Moment) -> bool {
        let asks = self.news == News::Unasked && self.is_held();
        if asks {
            self.news = News::Asked(now);
        }
        asks
    }

    /// The store tells of others from now on; or will not.
    pub(super) fn hears(&mut self, is_told: bool) {
        if is_told {
            self.news = News::None;
        }
    }

    /// Until when the answer is worth waiting for, if the store was asked to tell of others and has not
    /// answered.
    pub(super) fn news_due(&self) -> Option<Moment> {
        match self.news {
            News::Asked(asked) if !self.is_contended() => Some(asked + PASSING),
            _ => None,
        }
    }

    /// Whether requests that come now may be granted from it.
    pub(super) fn is_open(&self, now: Moment) -> bool {
        !self.is_contended() && self.news == News::None && self.may_be_passed_on(now)
    }

    /// Whether those who came before others waited may be granted from it.
    pub(super) fn may_be_passed_on(&self, now: Moment) -> bool {
        self.hold().is_some_and(|hold| {
            let has_tokens = is_shared(self.mode()) || hold.given < hold.room;
            has_tokens && (self.is_contended() || now < hold.since + UNHEARD)
        })
    }

    /// Whether those who came after the news that others wait, or when nobody could know, may be granted
    /// from it all the same.
    pub(super) fn may_be_lent(&self, now: Moment) -> bool {
        let since = match (self.contended_at, self.news) {
            (Some(contended), _) => contended,
            (None, News::Asked(asked)) => asked,
            (None, News::Unasked) => now,
            (None, News::None) => return self.is_open(now),
        };
        let passed = self.hold().map_or(PASSES, |hold| hold.passed);
        self.may_be_passed_on(now) && passed < PASSES && now < since + PASSING
    }

    /// Grants it to one more task. What is not received is to be [taken back](Turn::take_back).
    pub(super) fn give(&mut self) -> Option<Granted> {
        let (turn, shared) = (self.number(), is_shared(self.mode()));
        let contended = self.contended.clone();
        let hold = self.hold_mut()?;
        let local = match shared || is_on(Mutant::SameToken) {
            // Those who share do not conflict with each other.
            true => 0,
            false => hold.given,
        };
        hold.given += 1;
        hold.users += 1;
        hold.kept_until = None;
        Some(Granted {
            token: hold.token.handed_over(local),
            turn,
            contended,
        })
    }

    /// One who has it does not use it any more.
    pub(super) fn take_back(&mut self) {
        if let Some(hold) = self.hold_mut() {
            hold.users = hold.users.saturating_sub(1);
        }
    }

    /// Grants it to whoever waits first and has not gone; `false` if nobody is left.
    pub(super) fn give_to_next(&mut self) -> bool {
        while let Some(waiter) = self.waiters.pop_front() {
            if self.give_to(waiter) {
                return true;
            }
        }
        false
    }

    /// Whether the waiter has received it.
    pub(super) fn give_to(&mut self, waiter: Waiter) -> bool {
        let Some(granted) = self.give() else {
            return false;
        };
        let received = waiter.caller.send(Ok(Some(granted))).is_ok();
        if !received {
            self.take_back();
            // Nobody has seen its token. Those who are gone do not use the tokens up.
            if let Some(hold) = self.hold_mut() {
                hold.given -= 1;
            }
        }
        received
    }
}
