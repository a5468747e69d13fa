//! The watches of a session on etcd: `dlock-etcd/src/pushes.rs`, as steps.

use dlock_core::FencingToken;

use crate::bugs::Bug;
use crate::etcd::{Ahead, Etcd, Model, State};
use crate::model::World;

/// What a stream tells, in the order of the revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The watch of this claim, on that one, has begun.
    Began(u8, u8),
    /// The claim that this one watches was deleted.
    Deleted(u8, u8),
    /// The session's key was deleted.
    SessionGone,
}

/// How far a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// It is sent to the server.
    Ordered,
    /// The server has it.
    Made,
    /// The server has confirmed it: look once whether the claim ahead is there.
    Began,
    /// The claim ahead has gone: look at the claim itself.
    Looking,
}

/// A waiting claim, and its watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Waiter {
    claim: u8,
    token: FencingToken,
    ahead: Ahead,
    phase: Phase,
}

/// A session's watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Watcher {
    waiters: Vec<Waiter>,
    pub(crate) stream: Vec<Event>,
    /// Whether the server has the watch on the session's key.
    pub(crate) watches_session: bool,
    /// Whether the session was seen to stand since that began.
    stands: bool,
}

/// What may happen to the watches, and to leases in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The server ends a lease that has run out.
    Expire(u8),
    /// An operator ends it.
    Revoke(u8),
    /// The session's stream begins, with the watch on its key.
    Listen(u8),
    /// The session is seen to stand.
    SeeSession(u8),
    /// The stream breaks, and all that it had still to tell is lost.
    Break(u8),
    /// The next event is heard.
    Hear(u8),
    /// The server gets the watch of a claim.
    Watch(u8),
    /// The claim ahead is looked at, or the claim itself.
    Look(u8),
}

impl Watcher {
    fn waiter(&mut self, claim: u8) -> Option<&mut Waiter> {
        self.waiters.iter_mut().find(|waiter| waiter.claim == claim)
    }

    pub(crate) fn forget(&mut self, claim: u8) {
        self.waiters.retain(|waiter| waiter.claim != claim);
    }

    pub(crate) fn watch_over(&mut self, claim: u8, token: FencingToken, ahead: Ahead) {
        if let Some(known) = self.waiter(claim)
            && known.ahead.nearest == ahead.nearest
            && known.phase != Phase::Looking
        {
            known.ahead.sole |= ahead.sole;
            return;
        }
        self.forget(claim);
        self.waiters.push(Waiter {
            claim,
            token,
            ahead,
            phase: Phase::Ordered,
        });
        self.waiters.sort_unstable_by_key(|waiter| waiter.claim);
    }

    /// In the server: this claim was deleted.
    pub(crate) fn deleted(&mut self, claim: u8) {
        let watching = self.waiters.iter().filter(|waiter| {
            waiter.ahead.nearest == claim && matches!(waiter.phase, Phase::Made | Phase::Began)
        });
        let events = watching.map(|waiter| Event::Deleted(waiter.claim, claim));
        self.stream.extend(events);
    }
}

pub(crate) fn steps(world: &World<Etcd>, model: &Model, steps: &mut Vec<Step>) {
    let store = &world.store;
    for (session, watcher) in (0u8..).zip(&store.watchers) {
        if store.has_run_out(session) {
            steps.push(Step::Expire(session));
        }
        if !world.clients.sessions[usize::from(session)].acts()
            || world.clients.is_done(&model.plan, session)
        {
            continue;
        }
        if world.left.revokes > 0 && store.stands(session) {
            steps.push(Step::Revoke(session));
        }
        if !watcher.watches_session {
            steps.push(Step::Listen(session));
            continue;
        }
        if !watcher.stands {
            steps.push(Step::SeeSession(session));
        }
        if !watcher.stream.is_empty() {
            steps.push(Step::Hear(session));
        }
        if world.left.breaks > 0 {
            steps.push(Step::Break(session));
        }
        for waiter in &watcher.waiters {
            match waiter.phase {
                Phase::Ordered => steps.push(Step::Watch(waiter.claim)),
                Phase::Made => {}
                Phase::Began | Phase::Looking => steps.push(Step::Look(waiter.claim)),
            }
        }
    }
}

pub(crate) fn step(world: &mut World<Etcd>, model: &Model, step: Step) {
    match step {
        Step::Expire(session) => world.store.end(model, session),
        Step::Revoke(session) => {
            world.left.revokes -= 1;
            world.store.revoke(model, session);
        }
        Step::Listen(session) => watcher(world, session).watches_session = true,
        Step::SeeSession(session) => match world.store.stands(session) {
            true => watcher(world, session).stands = true,
            false => world.lose(session),
        },
        Step::Break(session) => {
            world.left.breaks -= 1;
            let watcher = watcher(world, session);
            watcher.watches_session = false;
            watcher.stands = false;
            watcher.stream.clear();
            let watches = watcher.waiters.iter_mut();
            // A look at a claim that has none goes on.
            let watches = watches.filter(|waiter| waiter.phase != Phase::Looking);
            watches.for_each(|waiter| waiter.phase = Phase::Ordered);
        }
        Step::Hear(session) => hear(world, model, session),
        Step::Watch(claim) => {
            let watcher = watcher(world, model.wish(claim).session);
            if let Some(waiter) = watcher.waiter(claim) {
                waiter.phase = Phase::Made;
                let nearest = waiter.ahead.nearest;
                watcher.stream.push(Event::Began(claim, nearest));
            }
        }
        Step::Look(claim) => look(world, model, claim),
    }
}

fn watcher(world: &mut World<Etcd>, session: u8) -> &mut Watcher {
    &mut world.store.watchers[usize::from(session)]
}

fn hear(world: &mut World<Etcd>, model: &Model, session: u8) {
    let watcher = watcher(world, session);
    let stands = watcher.stands || model.has(Bug::UnseenEnd);
    match watcher.stream.remove(0) {
        Event::SessionGone => world.lose(session),
        Event::Began(claim, on) => {
            if let Some(waiter) = watcher.waiter(claim)
                && waiter.ahead.nearest == on
                && waiter.phase == Phase::Made
                && !model.has(Bug::BlindWatch)
            {
                waiter.phase = Phase::Began;
            }
        }
        Event::Deleted(claim, on) => {
            let Some(waiter) = watcher.waiter(claim) else {
                return;
            };
            if waiter.ahead.nearest != on || !matches!(waiter.phase, Phase::Made | Phase::Began) {
                return;
            }
            let is_own = model.wish(on).session == session && !model.has(Bug::UnseenEnd);
            gone(world, model, claim, stands && !is_own);
        }
    }
}

/// The claim ahead is gone, and `session_stood` when it went.
fn gone(world: &mut World<Etcd>, model: &Model, claim: u8, session_stood: bool) {
    let watcher = watcher(world, model.wish(claim).session);
    let Some(waiter) = watcher.waiter(claim) else {
        return;
    };
    waiter.phase = Phase::Looking;
    let is_next = waiter.ahead.sole || model.has(Bug::EventIsGrant);
    let token = waiter.token;
    if is_next && session_stood {
        watcher.forget(claim);
        world.pushed(model, claim, token);
    }
}

fn look(world: &mut World<Etcd>, model: &Model, claim: u8) {
    let session = model.wish(claim).session;
    let Some(waiter) = watcher(world, session).waiter(claim).copied() else {
        return;
    };
    if waiter.phase == Phase::Began {
        // The event of a deletion that it sees may still come; the watch is gone then.
        if !world.store.stands(session) {
            return world.lose(session);
        }
        match world.store.is_there(waiter.ahead.nearest) {
            true => watched(world, session, claim),
            false => gone(world, model, claim, true),
        }
        return;
    }
    match world.store.look(model, claim) {
        State::Granted(_) => {
            watcher(world, session).forget(claim);
            world.pushed(model, claim, waiter.token);
        }
        State::Waiting(token, ahead) => watcher(world, session).watch_over(claim, token, ahead),
        // A hint: the core looks by itself.
        State::Absent => watcher(world, session).forget(claim),
        State::Lapsed => world.lose(session),
    }
}

/// The claim ahead was there after the watch had begun: its end will be an event.
fn watched(world: &mut World<Etcd>, session: u8, claim: u8) {
    if let Some(waiter) = watcher(world, session).waiter(claim) {
        waiter.phase = Phase::Made;
    }
}
