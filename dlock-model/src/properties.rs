//! The properties, by the ids of the contract, and what has to be remembered to check them.
//!
//! | id | what is checked |
//! | --- | --- |
//! | ATOM-A | no two claims that conflict are granted in the store; and no two sessions believe at one time that they hold the lock in modes that conflict |
//! | FENCE | a caller's token is greater than that of every caller before in a mode that conflicts |
//! | FAIR | the store grants exactly what [`LockTable`] grants for the same queue; nobody is told of a grant while a conflicting claim is ahead; a claim keeps its place while its session lives |
//! | ONCE | a claim whose withdraw was confirmed is not in the store, and a claim is never refused as withdrawn that was not |
//! | COMMITTED | nobody is told of a grant that was not in the store before |
//! | PROGRESS | where nothing more can happen, every session that lives has got all its locks and released them |
//!
//! PROGRESS is checked in the final states, and not as `eventually`, which misses a run that joins another
//! one. It says that every run gets there, because there are no cycles ([`crate::explore`]).

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{ClaimId, FencingToken, Owner, SessionId};
use stateright::{Model, Property};

use crate::claims::{Stage, Wish};
use crate::model::{LockModel, Place, Shape, World};

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// The greatest token that a caller was told in each mode, by its index.
    told: [u64; 6],
    /// The claims that the store has granted, a bit for each.
    granted: u8,
    tokens_fell: bool,
    overtook: bool,
    unfounded: bool,
}

impl Record {
    /// The store is at this point.
    pub(crate) fn committed(&mut self, queue: &[Place]) {
        for place in queue.iter().filter(|place| place.granted) {
            self.granted |= 1 << place.claim;
        }
    }

    /// A caller was told of this token.
    pub(crate) fn in_order<S: Shape>(
        &mut self,
        model: &LockModel<S>,
        claim: u8,
        token: FencingToken,
    ) {
        let mode = model.wish(claim).mode;
        for (other, told) in dlock_core::Mode::ALL.into_iter().zip(self.told) {
            self.tokens_fell |= !other.compatible(mode) && told >= token.get();
        }
        let told = &mut self.told[mode.index()];
        *told = token.get().max(*told);
    }

    /// A caller was told of a grant.
    pub(crate) fn told<S: Shape>(&mut self, model: &LockModel<S>, queue: &[Place], claim: u8) {
        self.unfounded |= self.granted & 1 << claim == 0;
        if let Some(place) = queue.iter().position(|place| place.claim == claim) {
            let mut ahead = queue[..place].iter();
            self.overtook |= ahead.any(|ahead| model.conflict(ahead.claim, claim));
        }
    }
}

/// The id of a claim in a [`LockTable`].
pub(crate) fn id_of(wish: Wish, claim: u8) -> ClaimId {
    ClaimId {
        session: SessionId::from(u128::from(wish.session)),
        number: u64::from(claim),
    }
}

/// An owner that says nothing, and costs nothing to copy.
pub(crate) fn nobody() -> Owner {
    Owner {
        host: String::new(),
        pid: 0,
        label: String::new(),
    }
}

/// Time that stands still: every number is one more than the last.
pub(crate) const STAMP: Stamp = Stamp {
    order: 0,
    millis: 0,
};

/// All of them, and one thing that has to be possible, so that the model is not empty of sense.
pub(crate) fn all<S: Shape>() -> Vec<Property<LockModel<S>>> {
    vec![
        Property::always("ATOM-A", atom_a),
        Property::always("FENCE", |_, world: &World<S>| !world.record.tokens_fell),
        Property::always("FAIR", fair),
        Property::always("ONCE", once),
        Property::always("COMMITTED", |_, world: &World<S>| !world.record.unfounded),
        Property::always("PROGRESS", progress),
        Property::sometimes("a crashed holder's lock is held by another", taken_over),
    ]
}

fn atom_a<S: Shape>(model: &LockModel<S>, world: &World<S>) -> bool {
    let queue = world.store.queue(model);
    let granted = queue.iter().filter(|place| place.granted);
    let granted: Vec<u8> = granted.map(|place| place.claim).collect();
    let held: Vec<u8> = believed(model, world).collect();
    let apart = |claims: &[u8]| {
        let mut pairs = (0..claims.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
        pairs.all(|(a, b)| !model.conflict(claims[a], claims[b]))
    };
    apart(&granted) && apart(&held)
}

/// The claims that their sessions believe to hold. Who was robbed by an operator believes it until told.
fn believed<S: Shape>(model: &LockModel<S>, world: &World<S>) -> impl Iterator<Item = u8> {
    let claims = (0u8..).zip(&world.clients.claims);
    claims.filter_map(|(claim, claimant)| {
        (claimant.stage == Stage::Granted && lives(model, world, claim)).then_some(claim)
    })
}

/// Whether the claim's session acts, and nobody ended it from outside.
fn lives<S: Shape>(model: &LockModel<S>, world: &World<S>, claim: u8) -> bool {
    let session = model.wish(claim).session;
    world.clients.sessions[usize::from(session)].acts() && !world.store.was_revoked(session)
}

fn fair<S: Shape>(model: &LockModel<S>, world: &World<S>) -> bool {
    let queue = world.store.queue(model);
    let mut table = LockTable::default();
    let as_the_table = queue.iter().all(|place| {
        let wish = model.wish(place.claim);
        let token = table.request(id_of(wish, place.claim), wish.mode, &nobody(), STAMP);
        token.is_some() == place.granted
    });
    let is_there = |claim: u8| queue.iter().any(|place| place.claim == claim);
    let mut claims = (0u8..).zip(&world.clients.claims);
    let keeps_its_place = claims.all(|(claim, claimant)| {
        !matches!(claimant.stage, Stage::Waiting | Stage::Granted)
            || is_there(claim)
            || !lives(model, world, claim)
    });
    as_the_table && keeps_its_place && !world.record.overtook
}

fn once<S: Shape>(model: &LockModel<S>, world: &World<S>) -> bool {
    let queue = world.store.queue(model);
    queue
        .iter()
        .all(|place| world.clients.stage(place.claim) != Stage::Gone)
        && !world.clients.was_refused
}

fn progress<S: Shape>(model: &LockModel<S>, world: &World<S>) -> bool {
    let (clients, plan) = (&world.clients, &model.plan);
    let sessions = (0u8..).zip(&clients.sessions);
    let mut unfinished =
        sessions.filter(|(session, state)| state.acts() && !clients.is_done(plan, *session));
    if unfinished.next().is_none() {
        return true;
    }
    let mut actions = Vec::new();
    model.actions(world, &mut actions);
    !actions.is_empty()
}

fn taken_over<S: Shape>(model: &LockModel<S>, world: &World<S>) -> bool {
    let died_holding = |claim: u8| {
        let session = usize::from(model.wish(claim).session);
        world.clients.sessions[session].crashed && world.record.granted & 1 << claim != 0
    };
    let claims = 0..u8::try_from(model.plan.len()).unwrap_or(u8::MAX);
    believed(model, world).any(|held| {
        claims
            .clone()
            .any(|dead| died_holding(dead) && model.conflict(dead, held))
    })
}
