//! The Redis shape: every operation is one atomic script, and a lease that has run out counts as absent.
//!
//! Modelled as in `dlock-redis/src/scripts`: a request that tests the lease, the mark and the claim, and is
//! compared with the counts of each mode; the promotion by the first waiter of each mode (which FAIR holds
//! against what [`LockTable`](dlock_core::table::LockTable) grants); reaping; marks that live as long as
//! the session; renewals that find a lapsed lease; one counter for tickets and tokens; grants by push.
//!
//! Left out: partitions (there is one, and its lease was made when the session was opened), the loss of
//! acknowledged writes, `WAIT`, the clock in tokens, the moment at which a waiter looks (whenever it would
//! find something), and `close`, which is a lease that runs out early.

use dlock_core::{FencingToken, Mode, Wait};

use crate::bugs::Bug;
use crate::claims::{Call, Op, Outcome, TTL};
use crate::model::{LockModel, Place, Shape, World};
use crate::network::{self, Envelope};

/// A claim in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Claim {
    id: u8,
    ticket: u64,
    /// The number of its grant; 0 while it waits.
    order: u64,
}

/// The server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Ticks until each session's lease runs out.
    leases: Vec<u8>,
    /// In the order of their tickets.
    claims: Vec<Claim>,
    /// The claims that must not come back.
    withdrawn: Vec<u8>,
    /// The greatest number given out.
    last: u64,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Body {
    /// Call of a script about a claim.
    Call(Op),
    /// Its answer, to this session.
    Answer(u8, Op, Outcome),
    /// A session renews.
    Renew(u8),
    /// Whether the lease stood.
    Renewed(u8, bool),
    /// To this session: the claim is granted.
    Granted(u8, u8, FencingToken),
}

impl network::Body for Body {
    fn recipient(&self) -> Option<u8> {
        match self {
            Body::Call(_) | Body::Renew(_) => None,
            Body::Answer(session, ..) | Body::Renewed(session, _) | Body::Granted(session, ..) => {
                Some(*session)
            }
        }
    }
}

type Model = LockModel<Redis>;

/// The claims that a script granted and pushes.
type Grants = Vec<(u8, FencingToken)>;

impl Redis {
    fn stands(&self, session: u8) -> bool {
        self.leases[usize::from(session)] > 0
    }

    fn find(&self, id: u8) -> Option<Claim> {
        self.claims.iter().find(|claim| claim.id == id).copied()
    }

    fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn remove(&mut self, model: &Model, leaves: impl Fn(u8) -> bool) -> bool {
        let before = self.claims.len();
        self.claims.retain(|claim| !leaves(claim.id));
        if self.claims.is_empty() && model.has(Bug::ForgottenNumbers) {
            self.last = 0;
        }
        self.claims.len() != before
    }

    fn is_blocked(&self, model: &Model, mode: Mode) -> bool {
        let mut ahead = self.claims.iter();
        ahead.any(|claim| {
            let counts = claim.order > 0 || !model.has(Bug::Barging);
            counts && !model.wish(claim.id).mode.compatible(mode)
        })
    }

    fn reap(&mut self, model: &Model) -> bool {
        let leases = self.leases.clone();
        let is_over = |id: u8| leases[usize::from(model.wish(id).session)] == 0;
        self.withdrawn.retain(|id| !is_over(*id));
        self.remove(model, is_over)
    }

    fn promote(&mut self, model: &Model) -> Grants {
        let mut granted = Vec::new();
        while let Some(next) = self.next_waiter(model) {
            let order = self.next_number();
            self.claims[next].order = order;
            granted.push((self.claims[next].id, FencingToken::from_order(order)));
        }
        granted
    }

    /// Of the first waiters of each mode, the first one that no holder and no earlier of these conflicts
    /// with.
    fn next_waiter(&self, model: &Model) -> Option<usize> {
        let mode = |claim: &Claim| model.wish(claim.id).mode;
        let head = |of: Mode| {
            let mut claims = self.claims.iter();
            claims.position(|claim| claim.order == 0 && mode(claim) == of)
        };
        let is_held = |of: Mode| {
            let mut claims = self.claims.iter();
            claims.any(|claim| claim.order > 0 && mode(claim) == of)
        };
        let is_next = |place: usize| {
            let conflicting = Mode::ALL
                .into_iter()
                .filter(|other| !other.compatible(mode(&self.claims[place])));
            let mut conflicting =
                conflicting.map(|other| is_held(other) || head(other).is_some_and(|h| h < place));
            !conflicting.any(|conflicts| conflicts)
        };
        let heads = Mode::ALL.into_iter().filter_map(head);
        heads.filter(|place| is_next(*place)).min()
    }

    fn run(&mut self, model: &Model, op: Op) -> (Outcome, Grants) {
        match op.call {
            Call::Request => self.request(model, op.claim),
            Call::Look => match self.stands(model.wish(op.claim).session) {
                true => self.look(model, op.claim),
                false => (Outcome::Lapsed, Grants::new()),
            },
            Call::Withdraw { may_arrive_late } => {
                let grants = self.withdraw(model, op.claim, may_arrive_late);
                (Outcome::Absent, grants)
            }
        }
    }

    fn request(&mut self, model: &Model, id: u8) -> (Outcome, Grants) {
        let wish = model.wish(id);
        let mut grants = Grants::new();
        if !self.stands(wish.session) {
            return (Outcome::Lapsed, grants);
        }
        if self.find(id).is_some() {
            return self.look(model, id);
        }
        if self.withdrawn.contains(&id) && !model.has(Bug::ForgottenWithdraw) {
            return (Outcome::Absent, grants);
        }
        let mut blocked = self.is_blocked(model, wish.mode);
        if blocked && self.reap(model) {
            grants = self.promote(model);
            blocked = self.is_blocked(model, wish.mode);
        }
        if blocked && wish.wait == Wait::Never {
            return (Outcome::Absent, grants);
        }
        let ticket = self.next_number();
        let order = if blocked { 0 } else { ticket };
        self.claims.push(Claim { id, ticket, order });
        (self.answer(id), grants)
    }

    fn answer(&self, id: u8) -> Outcome {
        match self.find(id) {
            None => Outcome::Absent,
            Some(Claim { order: 0, .. }) => Outcome::Waiting,
            Some(claim) => Outcome::Granted(FencingToken::from_order(claim.order)),
        }
    }

    fn look(&mut self, model: &Model, id: u8) -> (Outcome, Grants) {
        let mut grants = Grants::new();
        if self.find(id).is_some_and(|claim| claim.order == 0) {
            self.reap(model);
            grants = self.promote(model);
        }
        (self.answer(id), grants)
    }

    fn withdraw(&mut self, model: &Model, mut id: u8, may_arrive_late: bool) -> Grants {
        let session = model.wish(id).session;
        if may_arrive_late && self.stands(session) && !self.withdrawn.contains(&id) {
            self.withdrawn.push(id);
            self.withdrawn.sort_unstable();
        }
        if model.has(Bug::UncheckedWithdraw) {
            let holder = self.claims.iter().find(|claim| claim.order > 0);
            id = holder.map_or(id, |claim| claim.id);
        }
        if !self.remove(model, |other| other == id) {
            return Grants::new();
        }
        if self.claims.iter().any(|claim| claim.order == 0) {
            self.reap(model);
            return self.promote(model);
        }
        Grants::new()
    }

    fn renew_lease(&mut self, session: u8) -> bool {
        let stood = self.stands(session);
        if stood {
            self.leases[usize::from(session)] = TTL;
        }
        stood
    }
}

impl Shape for Redis {
    type Body = Body;
    type Step = ();

    fn new(model: &Model) -> Self {
        let sessions = model.plan.iter().map(|wish| wish.session + 1).max();
        Self {
            leases: vec![TTL; usize::from(sessions.unwrap_or(0))],
            claims: Vec::new(),
            withdrawn: Vec::new(),
            last: 0,
        }
    }

    fn call(world: &mut World<Self>, model: &Model, op: Op) {
        let session = model.wish(op.claim).session;
        world.send(Envelope::awaited(session, Body::Call(op)));
    }

    fn deliver(world: &mut World<Self>, model: &Model, message: Envelope<Body>) {
        match message.body {
            Body::Call(op) => {
                let (outcome, grants) = world.store.run(model, op);
                if let Some(session) = message.awaited_by {
                    let answer = Body::Answer(session, op, outcome);
                    world.send(Envelope::awaited(session, answer));
                }
                for (claim, token) in grants {
                    let session = model.wish(claim).session;
                    world.send(Envelope::new(Body::Granted(session, claim, token)));
                }
            }
            Body::Answer(_, op, outcome) => world.answered(model, op, outcome),
            Body::Renew(session) => {
                let stood = world.store.renew_lease(session);
                world.send(Envelope {
                    age: message.age,
                    ..Envelope::new(Body::Renewed(session, stood))
                });
            }
            Body::Renewed(session, true) => world.renewed(model, session, message.age),
            Body::Renewed(session, false) => world.lose(session),
            Body::Granted(_, claim, token) => world.pushed(model, claim, token),
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

    fn steps(_: &World<Self>, _: &Model, _: &mut Vec<()>) {}

    fn step(_: &mut World<Self>, _: &Model, (): ()) {}

    fn queue(&self, _: &Model) -> Vec<Place> {
        let claims = self.claims.iter();
        let place = |claim: &Claim| Place {
            claim: claim.id,
            granted: claim.order > 0,
        };
        claims.map(place).collect()
    }

    fn has_news(&self, model: &Model, claim: u8) -> bool {
        let stands = |id: u8| self.stands(model.wish(id).session);
        !stands(claim)
            || self.answer(claim) != Outcome::Waiting
            || self.claims.iter().any(|other| !stands(other.id))
    }

    fn left(&self, session: u8) -> u8 {
        self.leases[usize::from(session)]
    }

    fn tick(&mut self, session: u8) {
        let left = &mut self.leases[usize::from(session)];
        *left = left.saturating_sub(1);
    }

    fn hang_up(&mut self, _: u8) {}
}
