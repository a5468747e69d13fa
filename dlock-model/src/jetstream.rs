//! The JetStream shape: the lock is a document that changes by compare-and-set, and so is each lease.
//!
//! The document is a [`LockTable`]. Modelled as in `dlock-jetstream`: an operation reads the document
//! (perhaps one that is out of date, but none before what its session has seen), computes what becomes of
//! it, and writes that expecting the sequence that it read; if somebody was quicker, again. A withdraw
//! always writes. A session in the way whose key has gone, or has not changed for a whole TTL, is declared
//! dead by compare-and-set, and its claims are removed only after that mark is acknowledged. A renewal
//! expects the one before, and learns from the leader where that is wrong. Whoever wrote tells those whom
//! it granted. A session whose request is on its way may knock at another one, which lets the claim in with its
//! next write, unless the document says that such a knock is void.
//!
//! Left out: a read and what is computed from it are one step (a read that is answered late is one that is
//! out of date); after a death mark the document is read anew, where the client goes on with what it has,
//! which the write proves; a request does not look at who is in its way, only a look does; messages that
//! are sent again after an unanswered write (a look finds the grant); the end of marks and of documents
//! that nobody uses; `close`.

use std::hash::{Hash, Hasher};

use dlock_core::table::{Granted, LockTable};
use dlock_core::{FencingToken, SessionId, Wait};

use crate::bugs::Bug;
use crate::claims::{Call, Op, Outcome, TTL};
use crate::model::{LockModel, Place, Shape, World};
use crate::network::{self, Envelope};
use crate::properties::{STAMP, id_of, nobody};

/// A document's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(LockTable);

impl Table {
    /// All that there is to it: who owns a claim says nothing.
    fn parts(&self) -> (u64, Vec<(u64, u64, Option<FencingToken>)>) {
        let claims = self.0.claims();
        let claims = claims.map(|entry| (entry.id.number, entry.ticket, entry.token));
        (self.0.last(), claims.collect())
    }
}

impl Hash for Table {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl Ord for Table {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for Table {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A document and its sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Document {
    sequence: u8,
    table: Table,
    /// Knocks whose senders have seen nothing later than this count no more.
    void: u8,
}

/// A claim that asks to be let in, and the sequence of the document that its session had seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Knock {
    claim: u8,
    seen: u8,
}

/// A session's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Alive {
        sequence: u8,
        left: u8,
    },
    /// The server has deleted it.
    Missing,
    /// It bears a death mark.
    Dead,
}

/// How far a session's operation is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    None,
    /// It has to read.
    Reading,
    /// It has sent what it wants to write. Once that is stored, this is the outcome, these others are
    /// granted, and these knocks are answered.
    Writing(Outcome, Vec<(u8, FencingToken)>, Vec<Knock>),
    /// It has sent a death mark.
    Marking,
}

/// The stream, and what the backend's clients know of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JetStream {
    document: Document,
    /// What a replica that lags may still have.
    previous: Document,
    keys: Vec<Key>,
    works: Vec<Work>,
    /// The sequence of the document that each session has seen.
    seen: Vec<u8>,
    /// The sequence of its lease, as each session knows.
    renewed: Vec<u8>,
    /// What each session was asked to let in.
    heard: Vec<Vec<Knock>>,
    /// For each claim, the greatest sequence with which it has knocked.
    knocked: Vec<u8>,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Body {
    /// The document and up to where knocks are void, expecting this sequence.
    Write(u8, Table, u8),
    /// A death mark for this session, expecting this sequence of its key.
    Mark(u8, u8),
    /// To this session: whether what it wrote was stored, and as which sequence.
    Stored(u8, Option<u8>),
    /// A session renews, expecting this sequence.
    Renew(u8, u8),
    /// To this session: whether that was stored, and as which sequence.
    Renewed(u8, Option<u8>),
    /// To this session: the claim is granted.
    Granted(u8, u8, FencingToken),
    /// To this session: let it in.
    Knock(u8, Knock),
}

impl network::Body for Body {
    fn recipient(&self) -> Option<u8> {
        match self {
            Body::Write(..) | Body::Mark(..) | Body::Renew(..) => None,
            Body::Stored(session, _)
            | Body::Renewed(session, _)
            | Body::Granted(session, ..)
            | Body::Knock(session, _) => Some(*session),
        }
    }
}

/// How up to date a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// As the leader has it.
    Now,
    /// The document as it was before its last change.
    OldDocument,
    /// Without the keys of the other sessions.
    NoKeys,
}

/// What else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A session's operation reads, and sends what follows from that.
    Read(u8, Sight),
    /// The server deletes a session's key that has not been renewed.
    Delete(u8),
    /// A session whose request is on its way knocks at another one.
    Knock(u8, u8),
}

/// What an operation makes of what it has read.
enum Decision {
    Done(Outcome),
    Write(Outcome, Vec<Granted>),
    /// This session is to be declared dead first, expecting this sequence of its key.
    Mark(u8, u8),
}

type Model = LockModel<JetStream>;

impl JetStream {
    fn key(&self, session: u8) -> Key {
        self.keys[usize::from(session)]
    }

    fn set_work(&mut self, session: u8, work: Work) {
        self.works[usize::from(session)] = work;
    }

    fn write(&mut self, model: &Model, expected: u8, (mut table, void): (Table, u8)) -> Option<u8> {
        if expected != self.document.sequence && !model.has(Bug::UncheckedWrite) {
            return None;
        }
        if table.0.is_empty() && model.has(Bug::ForgottenNumbers) {
            table = Table::default();
        }
        let sequence = self.document.sequence + 1;
        let document = Document {
            sequence,
            table,
            void,
        };
        self.previous = std::mem::replace(&mut self.document, document);
        Some(sequence)
    }

    fn mark(&mut self, session: u8, expected: u8) -> Option<u8> {
        let as_expected = match self.key(session) {
            Key::Alive { sequence, .. } => sequence == expected,
            Key::Missing => expected == 0,
            Key::Dead => false,
        };
        as_expected.then(|| {
            self.keys[usize::from(session)] = Key::Dead;
            expected + 1
        })
    }

    fn renew_lease(&mut self, session: u8, expected: u8) -> Option<u8> {
        match self.key(session) {
            Key::Alive { sequence, .. } if sequence == expected => {
                let sequence = expected + 1;
                let left = TTL;
                self.keys[usize::from(session)] = Key::Alive { sequence, left };
                Some(sequence)
            }
            _ => None,
        }
    }

    /// Who has knocked at this session and is to be let into this document.
    fn knocks(&self, session: u8, table: &LockTable, void: u8, model: &Model) -> Vec<Knock> {
        let counts = |knock: &Knock| {
            let id = id_of(model.wish(knock.claim), knock.claim);
            knock.seen > void && table.get(id).is_none()
        };
        let heard = self.heard[usize::from(session)].iter().copied();
        heard.filter(counts).collect()
    }

    fn decide(&self, model: &Model, op: Op, table: &mut LockTable, sight: Sight) -> Decision {
        let wish = model.wish(op.claim);
        let id = id_of(wish, op.claim);
        let known = table.get(id).map(|entry| entry.token);
        match (op.call, known) {
            (Call::Withdraw { .. }, None) if model.has(Bug::ForgottenWithdraw) => {
                Decision::Done(Outcome::Absent)
            }
            (Call::Withdraw { .. }, _) => {
                let mut leaving = id;
                if model.has(Bug::UncheckedWithdraw) {
                    let mut claims = table.claims();
                    leaving = claims.next().map_or(id, |holder| holder.id);
                }
                let granted = table.withdraw(leaving, STAMP);
                Decision::Write(Outcome::Absent, granted)
            }
            (_, Some(Some(token))) => Decision::Done(Outcome::Granted(token)),
            (Call::Request, None) => match table.request(id, wish.mode, &nobody(), STAMP) {
                Some(token) => Decision::Write(Outcome::Granted(token), Vec::new()),
                None if wish.wait == Wait::Never => Decision::Done(Outcome::Absent),
                None => Decision::Write(Outcome::Waiting, Vec::new()),
            },
            (Call::Request, Some(None)) => Decision::Done(Outcome::Waiting),
            // Nobody takes out a claim of a session that lives.
            (Call::Look, None) => Decision::Done(match self.key(wish.session) {
                Key::Alive { .. } => Outcome::Absent,
                Key::Missing | Key::Dead => Outcome::Lapsed,
            }),
            (Call::Look, Some(None)) => self.free(model, op.claim, table, sight),
        }
    }

    /// Takes out what dead sessions have left in the claim's way.
    fn free(&self, model: &Model, claim: u8, table: &mut LockTable, sight: Sight) -> Decision {
        let wish = model.wish(claim);
        let id = id_of(wish, claim);
        let ahead: Vec<SessionId> = table.blockers(id).map(|entry| entry.id.session).collect();
        let before = table.claims().count();
        let mut granted = Vec::new();
        for other in 0..u8::try_from(self.keys.len()).unwrap_or(u8::MAX) {
            let session = SessionId::from(u128::from(other));
            if other == wish.session || !ahead.contains(&session) {
                continue;
            }
            let expected = match (self.key(other), sight) {
                (Key::Dead, _) => {
                    granted.extend(table.expire(session, STAMP));
                    continue;
                }
                (Key::Missing, _) | (_, Sight::NoKeys) => 0,
                (Key::Alive { left: 1.., .. }, _) => continue,
                (Key::Alive { sequence, .. }, _) => sequence,
            };
            if !model.has(Bug::UnprovenDeath) {
                return Decision::Mark(other, expected);
            }
            granted.extend(table.expire(session, STAMP));
        }
        let outcome = match table.get(id).and_then(|entry| entry.token) {
            Some(token) => Outcome::Granted(token),
            None => Outcome::Waiting,
        };
        match table.claims().count() < before {
            true => Decision::Write(outcome, granted),
            false => Decision::Done(outcome),
        }
    }

    fn stands(&self, session: u8) -> bool {
        matches!(self.key(session), Key::Alive { left: 1.., .. })
    }
}

fn read(world: &mut World<JetStream>, model: &Model, session: u8, sight: Sight) {
    let Some(op) = world.clients.session(session).gate else {
        return;
    };
    let Document {
        sequence,
        table,
        mut void,
    } = match sight {
        Sight::OldDocument => world.store.previous.clone(),
        Sight::Now | Sight::NoKeys => world.store.document.clone(),
    };
    if sight != Sight::Now {
        world.left.stale -= 1;
    }
    world.store.seen[usize::from(session)] = sequence;
    let mut draft = table.0;
    let knocks = world.store.knocks(session, &draft, void, model);
    let mut let_in = Vec::new();
    for knock in &knocks {
        let wish = model.wish(knock.claim);
        let id = id_of(wish, knock.claim);
        let token = draft.request(id, wish.mode, &nobody(), STAMP);
        let_in.extend(token.map(|token| Granted { id, token }));
    }
    if matches!(op.call, Call::Withdraw { .. }) && !model.has(Bug::LateKnock) {
        void = void.max(world.store.knocked[usize::from(op.claim)]);
    }
    match world.store.decide(model, op, &mut draft, sight) {
        Decision::Done(outcome) => finish(world, model, session, op, outcome),
        Decision::Mark(other, expected) => {
            world.store.set_work(session, Work::Marking);
            let mark = Body::Mark(other, expected);
            world.send(Envelope::awaited(session, mark));
        }
        Decision::Write(outcome, granted) => {
            let claim_of = |grant: &Granted| u8::try_from(grant.id.number).unwrap_or(u8::MAX);
            let granted = let_in.iter().chain(&granted);
            let others = granted.map(|grant| (claim_of(grant), grant.token));
            let others = others.filter(|(claim, _)| *claim != op.claim).collect();
            let write = Body::Write(sequence, Table(draft), void);
            world.send(Envelope::awaited(session, write));
            let work = Work::Writing(outcome, others, knocks);
            world.store.set_work(session, work);
            if let (true, Outcome::Granted(token)) = (model.has(Bug::ToldBeforeCommit), outcome) {
                world.pushed(model, op.claim, token);
            }
        }
    }
}

/// The session's claim is to be let in by another one, which it has seen in the document.
fn knock(world: &mut World<JetStream>, session: u8, other: u8) {
    let Some(op) = world.clients.session(session).gate else {
        return;
    };
    world.left.knocks -= 1;
    let seen = world.store.document.sequence;
    let claim = op.claim;
    world.store.seen[usize::from(session)] = seen;
    world.store.knocked[usize::from(claim)] = seen;
    let knock = Knock { claim, seen };
    world.send(Envelope::new(Body::Knock(other, knock)));
}

fn finish(world: &mut World<JetStream>, model: &Model, session: u8, op: Op, outcome: Outcome) {
    world.store.set_work(session, Work::None);
    world.answered(model, op, outcome);
}

/// What a session wrote is stored under this sequence, or somebody was quicker.
fn stored(world: &mut World<JetStream>, model: &Model, session: u8, sequence: Option<u8>) {
    let Some(op) = world.clients.session(session).gate else {
        return;
    };
    // An answer that came twice belongs to nothing any more.
    world.network.give_up(session);
    let place = usize::from(session);
    let work = std::mem::replace(&mut world.store.works[place], Work::Reading);
    let (Work::Writing(outcome, granted, knocks), Some(sequence)) = (work, sequence) else {
        return;
    };
    world.store.seen[place] = sequence;
    world.store.heard[place].retain(|knock| !knocks.contains(knock));
    for (claim, token) in granted {
        let session = model.wish(claim).session;
        world.send(Envelope::new(Body::Granted(session, claim, token)));
    }
    finish(world, model, session, op, outcome);
}

/// The answer to a renewal that was sent so many ticks ago.
fn renewed(world: &mut World<JetStream>, model: &Model, session: u8, stored: Option<u8>, age: u8) {
    let place = usize::from(session);
    let known = &mut world.store.renewed[place];
    match (stored, world.store.keys[place]) {
        (Some(sequence), _) => {
            *known = sequence.max(*known);
            world.renewed(model, session, age);
        }
        // The leader says which one to expect.
        (None, Key::Alive { sequence, .. }) => *known = sequence,
        (None, Key::Missing | Key::Dead) => world.lose(session),
    }
}

impl Shape for JetStream {
    type Body = Body;
    type Step = Step;

    fn new(model: &Model) -> Self {
        let sessions = model.plan.iter().map(|wish| wish.session + 1).max();
        let sessions = usize::from(sessions.unwrap_or(0));
        let key = Key::Alive {
            sequence: 1,
            left: TTL,
        };
        Self {
            document: Document::default(),
            previous: Document::default(),
            keys: vec![key; sessions],
            works: vec![Work::None; sessions],
            seen: vec![0; sessions],
            renewed: vec![1; sessions],
            heard: vec![Vec::new(); sessions],
            knocked: vec![0; model.plan.len()],
        }
    }

    fn call(world: &mut World<Self>, model: &Model, op: Op) {
        let session = model.wish(op.claim).session;
        world.store.set_work(session, Work::Reading);
    }

    fn deliver(world: &mut World<Self>, model: &Model, message: Envelope<Body>) {
        let stored_as = match message.body {
            Body::Write(expected, table, void) => world.store.write(model, expected, (table, void)),
            Body::Mark(session, expected) => world.store.mark(session, expected),
            Body::Stored(session, sequence) => return stored(world, model, session, sequence),
            Body::Renew(session, expected) => {
                let sequence = world.store.renew_lease(session, expected);
                return world.send(Envelope {
                    age: message.age,
                    ..Envelope::new(Body::Renewed(session, sequence))
                });
            }
            Body::Renewed(session, sequence) => {
                return renewed(world, model, session, sequence, message.age);
            }
            Body::Granted(_, claim, token) => return world.pushed(model, claim, token),
            Body::Knock(session, knock) => {
                let heard = &mut world.store.heard[usize::from(session)];
                heard.push(knock);
                heard.sort_unstable();
                return heard.dedup();
            }
        };
        if let Some(session) = message.awaited_by {
            world.send(Envelope::awaited(session, Body::Stored(session, stored_as)));
        }
    }

    fn renew(&self, session: u8) -> Body {
        Body::Renew(session, self.renewed[usize::from(session)])
    }

    fn renewal_of(body: &Body) -> Option<u8> {
        match body {
            Body::Renew(session, _) | Body::Renewed(session, _) => Some(*session),
            _ => None,
        }
    }

    fn steps(world: &World<Self>, model: &Model, steps: &mut Vec<Step>) {
        let store = &world.store;
        for (session, (work, key)) in (0u8..).zip(store.works.iter().zip(&store.keys)) {
            if matches!(key, Key::Alive { left: 0, .. }) {
                steps.push(Step::Delete(session));
            }
            if *work != Work::Reading {
                continue;
            }
            steps.push(Step::Read(session, Sight::Now));
            let newcomer = (world.clients.sessions[usize::from(session)].gate)
                .filter(|op| op.call == Call::Request)
                .filter(|op| model.wish(op.claim).wait == Wait::InTurn);
            if world.left.knocks > 0 && newcomer.is_some() {
                let sessions = (0u8..).zip(&store.seen).map(|(other, _)| other);
                let others = sessions.filter(|other| *other != session);
                steps.extend(others.map(|other| Step::Knock(session, other)));
            }
            let (old, now) = (store.previous.sequence, store.document.sequence);
            if world.left.stale > 0 {
                steps.push(Step::Read(session, Sight::NoKeys));
                if old < now && old >= store.seen[usize::from(session)] {
                    steps.push(Step::Read(session, Sight::OldDocument));
                }
            }
        }
    }

    fn step(world: &mut World<Self>, model: &Model, step: Step) {
        match step {
            Step::Read(session, sight) => read(world, model, session, sight),
            Step::Delete(session) => world.store.keys[usize::from(session)] = Key::Missing,
            Step::Knock(session, other) => knock(world, session, other),
        }
    }

    fn queue(&self, _: &Model) -> Vec<Place> {
        let claims = self.document.table.0.claims();
        let places = claims.map(|entry| Place {
            claim: u8::try_from(entry.id.number).unwrap_or(u8::MAX),
            granted: entry.token.is_some(),
        });
        places.collect()
    }

    fn has_news(&self, model: &Model, claim: u8) -> bool {
        let wish = model.wish(claim);
        let id = id_of(wish, claim);
        let table = &self.document.table.0;
        let waits = table.get(id).is_some_and(|entry| entry.token.is_none());
        let sessions = (0u8..).zip(&self.keys).map(|(session, _)| session);
        let mut fallen =
            sessions.filter(|session| *session != wish.session && !self.stands(*session));
        let is_ahead = |session: u8| {
            let session = SessionId::from(u128::from(session));
            table.blockers(id).any(|ahead| ahead.id.session == session)
        };
        !waits || fallen.any(is_ahead)
    }

    fn left(&self, session: u8) -> u8 {
        match self.key(session) {
            Key::Alive { left, .. } => left,
            Key::Missing | Key::Dead => 0,
        }
    }

    fn tick(&mut self, session: u8) {
        if let Key::Alive { left, .. } = &mut self.keys[usize::from(session)] {
            *left = left.saturating_sub(1);
        }
    }

    fn hang_up(&mut self, session: u8) {
        self.set_work(session, Work::None);
        self.heard[usize::from(session)].clear();
    }

    fn give_up(&mut self, session: u8) {
        self.set_work(session, Work::None);
    }

    fn is_at_work(&self, session: u8) -> bool {
        self.works[usize::from(session)] == Work::Reading
    }
}
