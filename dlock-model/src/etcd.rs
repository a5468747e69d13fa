//! The etcd shape: claims are keys under a lease, their order is the order of creation, and whether one is
//! granted is derived from that.
//!
//! Modelled as in `dlock-etcd`: the request's transaction (session stands, claim and mark absent; the
//! nearest claim ahead and whether it is the only one), looks, the mark of a withdraw, tokens of base and
//! ticket with the base as of the ticket, the session's key that goes with its claims in one revision, and
//! the watches: a stream in order, that may break; the look after a watch has begun; a deletion that is a
//! grant when the claim ahead was the only one, the session was seen to stand, and the claim was another
//! session's.
//!
//! Left out: a search and the look that follows are one read; reads of the watches' task are answered at
//! once (late, they would say what was true before); a backup that is restored; compaction; and that a key is
//! used again, which happens only where no message about an earlier claim can arrive.

use dlock_core::{FencingToken, Wait};

use crate::bugs::Bug;
use crate::claims::{Call, Op, Outcome, TTL};
use crate::model::{LockModel, Place, Shape, World};
use crate::network::{self, Envelope};
use crate::watches::{Event, Step, Watcher};

/// A claim's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    claim: u8,
    /// The revision at which it was made.
    ticket: u64,
    /// The base as of then.
    base: u64,
    /// Whether its record says so, because the request had raised it.
    in_record: bool,
}

/// A session's lease and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lease {
    left: u8,
    over: bool,
    revoked: bool,
}

/// The cluster, and what the backend's clients know of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Etcd {
    revision: u64,
    base: u64,
    leases: Vec<Lease>,
    /// In the order of their tickets.
    keys: Vec<Key>,
    withdrawn: Vec<u8>,
    /// The greatest base that each session has seen.
    known: Vec<u64>,
    pub(crate) watchers: Vec<Watcher>,
}

/// The conflicting claims ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ahead {
    /// The last of them.
    pub nearest: u8,
    /// Whether it is the only one.
    pub sole: bool,
}

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Nothing is ahead.
    Granted(FencingToken),
    /// Something is; the token will be this.
    Waiting(FencingToken, Ahead),
    /// It is not there.
    Absent,
    /// The session is over.
    Lapsed,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Body {
    /// A transaction about a claim, and the base that it proposes.
    Call(Op, u64),
    /// Its answer, to this session, and the base that it tells of.
    Answer(u8, Op, State, u64),
    /// A session renews.
    Renew(u8),
    /// Whether the lease stood.
    Renewed(u8, bool),
}

impl network::Body for Body {
    fn recipient(&self) -> Option<u8> {
        match self {
            Body::Call(..) | Body::Renew(_) => None,
            Body::Answer(session, ..) | Body::Renewed(session, _) => Some(*session),
        }
    }
}

pub(crate) type Model = LockModel<Etcd>;

impl Etcd {
    pub(crate) fn stands(&self, session: u8) -> bool {
        !self.leases[usize::from(session)].over
    }

    pub(crate) fn is_there(&self, claim: u8) -> bool {
        self.keys.iter().any(|key| key.claim == claim)
    }

    /// The conflicting claims ahead of this place of the queue.
    fn ahead(&self, model: &Model, claim: u8, place: usize) -> Option<Ahead> {
        let ahead = self.keys[..place].iter();
        let mut ahead = ahead.filter(|key| model.conflict(key.claim, claim));
        let nearest = ahead.next_back()?.claim;
        let sole = ahead.next_back().is_none();
        Some(Ahead { nearest, sole })
    }

    fn token(&self, model: &Model, key: &Key) -> FencingToken {
        let base = match model.has(Bug::BaseAsOfNow) && !key.in_record {
            true => self.base,
            false => key.base,
        };
        FencingToken::from_order(base + key.ticket)
    }

    /// How a claim stands, by one read.
    pub(crate) fn look(&self, model: &Model, claim: u8) -> State {
        let place = self.keys.iter().position(|key| key.claim == claim);
        match place {
            _ if !self.stands(model.wish(claim).session) => State::Lapsed,
            None => State::Absent,
            Some(place) => {
                let token = self.token(model, &self.keys[place]);
                match self.ahead(model, claim, place) {
                    None => State::Granted(token),
                    Some(ahead) => State::Waiting(token, ahead),
                }
            }
        }
    }

    fn request(&mut self, model: &Model, claim: u8, proposed: u64) -> State {
        let wish = model.wish(claim);
        let is_withdrawn = self.withdrawn.contains(&claim) && !model.has(Bug::ForgottenWithdraw);
        if !self.stands(wish.session) || self.is_there(claim) {
            return self.look(model, claim);
        }
        let ahead = self.ahead(model, claim, self.keys.len());
        if is_withdrawn || ahead.is_some() && wish.wait == Wait::Never {
            return State::Absent;
        }
        let in_record = self.base < proposed;
        self.base = self.base.max(proposed);
        self.revision += 1;
        self.keys.push(Key {
            claim,
            ticket: self.revision,
            base: self.base,
            in_record,
        });
        let token = FencingToken::from_order(self.base + self.revision);
        match ahead {
            None => State::Granted(token),
            Some(ahead) => State::Waiting(token, ahead),
        }
    }

    fn withdraw(&mut self, model: &Model, claim: u8, may_arrive_late: bool) -> State {
        if may_arrive_late {
            if !self.stands(model.wish(claim).session) {
                return State::Lapsed;
            }
            if !self.withdrawn.contains(&claim) {
                self.withdrawn.push(claim);
                self.withdrawn.sort_unstable();
            }
        }
        match model.has(Bug::UncheckedWithdraw) {
            true => self.delete(|_| true),
            false => self.delete(|other| other == claim),
        }
        State::Absent
    }

    fn delete(&mut self, leaves: impl Fn(u8) -> bool) {
        let gone = self.keys.iter().filter(|key| leaves(key.claim));
        let gone: Vec<u8> = gone.map(|key| key.claim).collect();
        self.keys.retain(|key| !leaves(key.claim));
        for claim in gone {
            let watchers = self.watchers.iter_mut();
            watchers.for_each(|watcher| watcher.deleted(claim));
        }
    }

    /// The server ends a lease, and with it all that is bound to it. Events of one revision come in any
    /// order: here the session's own end comes last, which is the worst.
    pub(crate) fn end(&mut self, model: &Model, session: u8) {
        self.leases[usize::from(session)].over = true;
        let mine = |claim: u8| model.wish(claim).session == session;
        self.withdrawn.retain(|claim| !mine(*claim));
        self.delete(mine);
        let watcher = &mut self.watchers[usize::from(session)];
        if watcher.watches_session {
            watcher.stream.push(Event::SessionGone);
        }
    }

    pub(crate) fn revoke(&mut self, model: &Model, session: u8) {
        self.leases[usize::from(session)].revoked = true;
        self.end(model, session);
    }

    pub(crate) fn has_run_out(&self, session: u8) -> bool {
        let lease = self.leases[usize::from(session)];
        lease.left == 0 && !lease.over
    }

    fn run(&mut self, model: &Model, op: Op, proposed: u64) -> State {
        match op.call {
            Call::Request => self.request(model, op.claim, proposed),
            Call::Look => self.look(model, op.claim),
            Call::Withdraw { may_arrive_late } => self.withdraw(model, op.claim, may_arrive_late),
        }
    }

    /// More than what the session knows. The second session's clock is ahead.
    fn proposal(&self, session: u8) -> u64 {
        let ahead = if session == 1 { 2 } else { 0 };
        self.known[usize::from(session)] + 1 + ahead
    }
}

/// The answer to an operation has arrived.
fn answered(world: &mut World<Etcd>, model: &Model, op: Op, state: State, base: u64) {
    let session = model.wish(op.claim).session;
    let known = &mut world.store.known[usize::from(session)];
    *known = base.max(*known);
    let watcher = &mut world.store.watchers[usize::from(session)];
    let outcome = match state {
        State::Granted(token) => {
            watcher.forget(op.claim);
            Outcome::Granted(token)
        }
        State::Waiting(token, ahead) => {
            watcher.watch_over(op.claim, token, ahead);
            Outcome::Waiting
        }
        State::Absent => {
            watcher.forget(op.claim);
            Outcome::Absent
        }
        State::Lapsed => Outcome::Lapsed,
    };
    world.answered(model, op, outcome);
}

impl Shape for Etcd {
    type Body = Body;
    type Step = Step;

    fn new(model: &Model) -> Self {
        let sessions = model.plan.iter().map(|wish| wish.session + 1).max();
        let sessions = usize::from(sessions.unwrap_or(0));
        let lease = Lease {
            left: TTL,
            over: false,
            revoked: false,
        };
        Self {
            revision: 0,
            // Somebody has raised it since the first sessions saw it.
            base: 3,
            leases: vec![lease; sessions],
            keys: Vec::new(),
            withdrawn: Vec::new(),
            known: vec![0; sessions],
            watchers: vec![Watcher::default(); sessions],
        }
    }

    fn call(world: &mut World<Self>, model: &Model, op: Op) {
        let session = model.wish(op.claim).session;
        if matches!(op.call, Call::Withdraw { .. }) {
            world.store.watchers[usize::from(session)].forget(op.claim);
        }
        let proposed = match op.call {
            Call::Request => world.store.proposal(session),
            _ => 0,
        };
        world.send(Envelope::awaited(session, Body::Call(op, proposed)));
    }

    fn deliver(world: &mut World<Self>, model: &Model, message: Envelope<Body>) {
        match message.body {
            Body::Call(op, proposed) => {
                let state = world.store.run(model, op, proposed);
                if let Some(session) = message.awaited_by {
                    let answer = Body::Answer(session, op, state, world.store.base);
                    world.send(Envelope::awaited(session, answer));
                }
            }
            Body::Answer(_, op, state, base) => answered(world, model, op, state, base),
            Body::Renew(session) => {
                let lease = &mut world.store.leases[usize::from(session)];
                let stood = !lease.over && lease.left > 0;
                if stood {
                    lease.left = TTL;
                }
                world.send(Envelope {
                    age: message.age,
                    ..Envelope::new(Body::Renewed(session, stood))
                });
            }
            Body::Renewed(session, true) => world.renewed(model, session, message.age),
            Body::Renewed(session, false) => world.lose(session),
        }
    }

    fn renew(&self, session: u8) -> Body {
        Body::Renew(session)
    }

    fn renewal_of(body: &Body) -> Option<u8> {
        match body {
            Body::Renew(session) | Body::Renewed(session, _) => Some(*session),
            _ => None,
        }
    }

    fn steps(world: &World<Self>, model: &Model, steps: &mut Vec<Step>) {
        crate::watches::steps(world, model, steps);
    }

    fn step(world: &mut World<Self>, model: &Model, step: Step) {
        crate::watches::step(world, model, step);
    }

    /// A claim is granted when nothing that conflicts is ahead.
    fn queue(&self, model: &Model) -> Vec<Place> {
        let keys = self.keys.iter().enumerate();
        let place = |(place, key): (usize, &Key)| Place {
            claim: key.claim,
            granted: self.ahead(model, key.claim, place).is_none(),
        };
        keys.map(place).collect()
    }

    fn has_news(&self, model: &Model, claim: u8) -> bool {
        !matches!(self.look(model, claim), State::Waiting(..))
    }

    fn left(&self, session: u8) -> u8 {
        let lease = self.leases[usize::from(session)];
        if lease.over { 0 } else { lease.left }
    }

    fn tick(&mut self, session: u8) {
        let left = &mut self.leases[usize::from(session)].left;
        *left = left.saturating_sub(1);
    }

    fn hang_up(&mut self, session: u8) {
        self.watchers[usize::from(session)] = Watcher::default();
    }

    fn was_revoked(&self, session: u8) -> bool {
        self.leases[usize::from(session)].revoked
    }
}
