//! The model: clients, a network and a store, and everything that may happen to them.
//!
//! **Time** is a tick for each session, at which its lease in the store and its client's deadline both come
//! closer: a session's clock and the store's run at the same speed, and there is no other clock. A client
//! that neither crashes nor is cut off renews in time. `Faults::lapses` says how many are cut off.
//!
//! **Bounds.** Whatever could go on for ever has a budget ([`Faults`]), and a look is sent when it will find
//! something new, or on a budget. So every run ends, and progress is that none ends too early.

use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use dlock_core::FencingToken;
use stateright::{Model, Property};

use crate::bugs::Bug;
use crate::claims::{Call, Clients, Op, Outcome, Stage, TTL, Wish};
use crate::network::{Body, Envelope, Network};
use crate::properties::{self, Record};

/// How often each thing that goes wrong may still do so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A message is lost.
    pub lose: u8,
    /// A message arrives twice.
    pub repeat: u8,
    /// An operation is given up though it, or its answer, is on its way.
    pub give_up: u8,
    /// A process crashes.
    pub crash: u8,
    /// A caller stops waiting.
    pub cancel: u8,
    /// The time of a session that lives goes on by a tick.
    pub ticks: u8,
    /// A client cannot renew in time, and is told that its session is lost.
    pub lapses: u8,
    /// A look that finds nothing new.
    pub early_looks: u8,
    /// A read answers with what was there before.
    pub stale: u8,
    /// A stream of events breaks.
    pub breaks: u8,
    /// An operator ends a session.
    pub revokes: u8,
    /// A session asks another one to let its claim in.
    pub knocks: u8,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Faults = Faults {
        lose: 0,
        repeat: 0,
        give_up: 0,
        crash: 0,
        cancel: 0,
        ticks: 0,
        lapses: 0,
        early_looks: 0,
        stale: 0,
        breaks: 0,
        revokes: 0,
        knocks: 0,
    };
}

/// One lock's claims at one moment, in the order of their tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The claim, by its place in the plan.
    pub claim: u8,
    /// Whether the store has granted it.
    pub granted: bool,
}

/// A store's part of the protocol, and what a backend's clients do about it.
pub trait Shape: Clone + Debug + Eq + Hash + Sized + Send + Sync + 'static {
    /// What its messages say.
    type Body: Body + Send + Sync;
    /// What else may happen in it.
    type Step: Copy + Debug + Eq + Send + Sync;

    /// A store in which all sessions were just opened.
    fn new(model: &LockModel<Self>) -> Self;
    /// A session begins an operation.
    fn call(world: &mut World<Self>, model: &LockModel<Self>, op: Op);
    /// A message arrives, which is in the network no more.
    fn deliver(world: &mut World<Self>, model: &LockModel<Self>, message: Envelope<Self::Body>);
    /// A session sends a renewal.
    fn renew(&self, session: u8) -> Self::Body;
    /// The session of a renewal or its answer.
    fn renewal_of(body: &Self::Body) -> Option<u8>;
    /// Everything else that may happen now.
    fn steps(world: &World<Self>, model: &LockModel<Self>, steps: &mut Vec<Self::Step>);
    /// Does it.
    fn step(world: &mut World<Self>, model: &LockModel<Self>, step: Self::Step);
    /// The claims in the store.
    fn queue(&self, model: &LockModel<Self>) -> Vec<Place>;
    /// Whether a look at this waiting claim finds something new.
    fn has_news(&self, model: &LockModel<Self>, claim: u8) -> bool;
    /// Ticks until the session's lease runs out.
    fn left(&self, session: u8) -> u8;
    /// The session's lease comes a tick closer to its end.
    fn tick(&mut self, session: u8);
    /// The session does nothing any more.
    fn hang_up(&mut self, session: u8);
    /// The session's operation was given up.
    fn give_up(&mut self, _session: u8) {}
    /// Whether the session's operation has a next step of its own to do.
    fn is_at_work(&self, _session: u8) -> bool {
        false
    }
    /// Whether somebody ended the session from outside, before its client could know.
    fn was_revoked(&self, _session: u8) -> bool {
        false
    }
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World<S: Shape> {
    /// What the clients know.
    pub clients: Clients,
    /// What is on its way.
    pub network: Network<S::Body>,
    /// The store, and what the backend's clients know of it.
    pub store: S,
    /// What may still go wrong.
    pub left: Faults,
    /// What has happened, for the properties.
    pub record: Record,
}

/// What may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<B, T> {
    /// A session sends an operation.
    Ask(Op),
    /// A caller lets go: release, or drop.
    Leave(u8),
    /// A session gives up its operation on its way.
    GiveUp(u8),
    /// A session sends a renewal.
    Renew(u8),
    /// A message arrives.
    Deliver(Envelope<B>),
    /// A message is lost.
    Lose(Envelope<B>),
    /// A message is there twice.
    Repeat(Envelope<B>),
    /// A process crashes.
    Crash(u8),
    /// Time passes for a session.
    Tick(u8),
    /// Something of this store alone.
    Step(T),
}

/// What is checked: a protocol, what its clients want, and what may go wrong.
#[derive(Clone, Debug)]
pub struct LockModel<S> {
    /// The claims, those of one session in the order in which it makes them.
    pub plan: Vec<Wish>,
    /// What may go wrong.
    pub faults: Faults,
    /// What is wrong with the protocol.
    pub bug: Option<Bug>,
    shape: PhantomData<S>,
}

impl<S: Shape> LockModel<S> {
    /// The protocol as it is implemented.
    pub fn new(plan: Vec<Wish>, faults: Faults) -> Self {
        Self {
            plan,
            faults,
            bug: None,
            shape: PhantomData,
        }
    }

    /// The same with a fault in the protocol.
    #[must_use]
    pub fn with(mut self, bug: Bug) -> Self {
        self.bug = Some(bug);
        self
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(crate) fn wish(&self, claim: u8) -> Wish {
        self.plan[usize::from(claim)]
    }

    pub(crate) fn conflict(&self, a: u8, b: u8) -> bool {
        !self.wish(a).mode.compatible(self.wish(b).mode)
    }
}

impl<S: Shape> World<S> {
    /// Sends a message; one to a session that listens no more vanishes.
    pub(crate) fn send(&mut self, message: Envelope<S::Body>) {
        let listens = |session: u8| self.clients.sessions[usize::from(session)].acts();
        if message.body.recipient().is_none_or(listens) {
            self.network.send(message);
        }
    }

    /// The store's answer to the operation on its way has arrived.
    pub(crate) fn answered(&mut self, model: &LockModel<S>, op: Op, outcome: Outcome) {
        let wish = model.wish(op.claim);
        self.clients.session(wish.session).gate = None;
        self.network.give_up(wish.session);
        if outcome == Outcome::Lapsed {
            return self.lose(wish.session);
        }
        if let Some(token) = self.clients.answered(op, wish.wait, outcome) {
            self.tell(model, op.claim, token);
        }
    }

    /// The store has pushed a grant.
    pub(crate) fn pushed(&mut self, model: &LockModel<S>, claim: u8, token: FencingToken) {
        let acts = self.clients.session(model.wish(claim).session).acts();
        let stage = self.clients.stage(claim);
        if acts && matches!(stage, Stage::Requested | Stage::Waiting) {
            self.tell(model, claim, token);
        }
    }

    /// The answer to a renewal that was sent so many ticks ago.
    pub(crate) fn renewed(&mut self, model: &LockModel<S>, session: u8, age: u8) {
        let age = match model.has(Bug::DeadlineFromReply) {
            true => 0,
            false => age,
        };
        let deadline = &mut self.clients.session(session).deadline;
        if *deadline > 0 {
            *deadline = TTL.saturating_sub(age).max(*deadline);
        }
    }

    /// The caller is told of a grant (the output gate).
    fn tell(&mut self, model: &LockModel<S>, claim: u8, token: FencingToken) {
        self.clients.claim(claim).stage = Stage::Granted;
        let queue = self.store.queue(model);
        // Who was robbed by an operator may be told late: the resource refuses the token (FENCE).
        if !self.store.was_revoked(model.wish(claim).session) {
            self.record.in_order(model, claim, token);
        }
        self.record.told(model, &queue, claim);
    }

    /// The session is over, and its client knows.
    pub(crate) fn lose(&mut self, session: u8) {
        self.clients.session(session).deadline = 0;
        self.end(session);
    }

    fn end(&mut self, session: u8) {
        self.clients.session(session).gate = None;
        self.network.hang_up(session);
        self.store.hang_up(session);
    }

    fn ask(&mut self, model: &LockModel<S>, op: Op) {
        let session = model.wish(op.claim).session;
        self.clients.session(session).gate = Some(op);
        if op.call == Call::Request {
            self.clients.claim(op.claim).stage = Stage::Requested;
        }
        if op.call == Call::Look && !self.store.has_news(model, op.claim) {
            self.left.early_looks -= 1;
        }
        S::call(self, model, op);
    }

    fn leave(&mut self, claim: u8) {
        if self.clients.stage(claim) != Stage::Granted {
            self.left.cancel -= 1;
        }
        self.clients.claim(claim).stage = Stage::Leaving;
    }

    fn give_up(&mut self, model: &LockModel<S>, session: u8) {
        if self.is_awaited(session) || self.store.is_at_work(session) {
            self.left.give_up -= 1;
        }
        let Some(op) = self.clients.session(session).gate.take() else {
            return;
        };
        self.network.give_up(session);
        self.clients.given_up(op);
        self.store.give_up(session);
        if model.has(Bug::GuessedOutcome) && op.call == Call::Request {
            self.tell(model, op.claim, FencingToken::from_order(1));
        }
    }

    fn tick(&mut self, session: u8) {
        let state = self.clients.session(session);
        if state.acts() {
            self.left.ticks -= 1;
            state.deadline -= 1;
            if state.deadline == 0 {
                self.left.lapses -= 1;
                self.lose(session);
            }
        }
        self.network.change(|message| {
            if S::renewal_of(&message.body) == Some(session) {
                message.age = TTL.min(message.age + 1);
            }
        });
        self.store.tick(session);
    }

    /// Whether the session's operation, or its answer, is on its way.
    fn is_awaited(&self, session: u8) -> bool {
        self.network
            .iter()
            .any(|message| message.awaited_by == Some(session))
    }

    fn client_actions(&self, model: &LockModel<S>, actions: &mut Vec<ActionOf<S>>) {
        for (session, state) in (0u8..).zip(&self.clients.sessions) {
            if self.may_tick(model, session) {
                actions.push(Action::Tick(session));
            }
            if !state.acts() {
                continue;
            }
            for op in self.clients.next_ops(&model.plan, session) {
                if op.call != Call::Look || self.may_look(model, op.claim) {
                    actions.push(Action::Ask(op));
                }
            }
            let is_lost = !self.is_awaited(session) && !self.store.is_at_work(session);
            if state.gate.is_some() && (is_lost || self.left.give_up > 0) {
                actions.push(Action::GiveUp(session));
            }
            let busy = !self.clients.is_done(&model.plan, session);
            let mut renewals = self.network.iter().map(|m| S::renewal_of(&m.body));
            if busy && state.deadline < TTL && !renewals.any(|of| of == Some(session)) {
                actions.push(Action::Renew(session));
            }
            if busy && self.left.crash > 0 {
                actions.push(Action::Crash(session));
            }
        }
        for (claim, claimant) in (0u8..).zip(&self.clients.claims) {
            let cancels = matches!(claimant.stage, Stage::Requested | Stage::Waiting);
            let leaves = claimant.stage == Stage::Granted || cancels && self.left.cancel > 0;
            if leaves && self.clients.sessions[usize::from(model.wish(claim).session)].acts() {
                actions.push(Action::Leave(claim));
            }
        }
    }

    fn may_look(&self, model: &LockModel<S>, claim: u8) -> bool {
        self.left.early_looks > 0
            || self.store.has_news(model, claim)
                && !model.has(Bug::NeverLooks)
                && !model.has(Bug::BlindWatch)
    }

    fn may_tick(&self, model: &LockModel<S>, session: u8) -> bool {
        let state = &self.clients.sessions[usize::from(session)];
        match state.acts() {
            true => {
                self.left.ticks > 0
                    && (state.deadline > 1 || self.left.lapses > 0)
                    && !self.clients.is_done(&model.plan, session)
            }
            false => self.store.left(session) > 0,
        }
    }

    fn network_actions(&self, model: &LockModel<S>, actions: &mut Vec<ActionOf<S>>) {
        let calls_are_repeated = model.has(Bug::RepeatedCalls);
        let mut last = None;
        for message in self.network.iter() {
            if last == Some(message) {
                continue;
            }
            last = Some(message);
            actions.push(Action::Deliver(message.clone()));
            if self.left.lose > 0 {
                actions.push(Action::Lose(message.clone()));
            }
            if self.left.repeat > 0 && (message.may_be_repeated() || calls_are_repeated) {
                actions.push(Action::Repeat(message.clone()));
            }
        }
    }
}

/// The actions in a protocol.
pub type ActionOf<S> = Action<<S as Shape>::Body, <S as Shape>::Step>;

impl<S: Shape> Model for LockModel<S> {
    type State = World<S>;
    type Action = ActionOf<S>;

    fn init_states(&self) -> Vec<World<S>> {
        vec![World {
            clients: Clients::new(&self.plan),
            network: Network::default(),
            store: S::new(self),
            left: self.faults,
            record: Record::default(),
        }]
    }

    fn actions(&self, world: &World<S>, actions: &mut Vec<ActionOf<S>>) {
        world.client_actions(self, actions);
        world.network_actions(self, actions);
        let mut steps = Vec::new();
        S::steps(world, self, &mut steps);
        actions.extend(steps.into_iter().map(Action::Step));
    }

    fn next_state(&self, last: &World<S>, action: ActionOf<S>) -> Option<World<S>> {
        let mut world = last.clone();
        match action {
            Action::Ask(op) => world.ask(self, op),
            Action::Leave(claim) => world.leave(claim),
            Action::GiveUp(session) => world.give_up(self, session),
            Action::Renew(session) => {
                let renewal = world.store.renew(session);
                world.send(Envelope::new(renewal));
            }
            Action::Deliver(message) => {
                world.network.take(&message);
                S::deliver(&mut world, self, message);
            }
            Action::Lose(message) => {
                world.left.lose -= 1;
                world.network.take(&message);
            }
            Action::Repeat(message) => {
                world.left.repeat -= 1;
                world.network.send(message);
            }
            Action::Crash(session) => {
                world.left.crash -= 1;
                world.clients.session(session).crashed = true;
                world.end(session);
            }
            Action::Tick(session) => world.tick(session),
            Action::Step(step) => S::step(&mut world, self, step),
        }
        let queue = world.store.queue(self);
        world.record.committed(&queue);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
