//! What the store should hold, and what happens to it: the reference that the histories are made from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{Attempts, COMPATIBLE, ClaimId, Mode, Owner, SessionId, Wait};
use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;

pub(crate) const CLIENTS: usize = 4;
pub(crate) const LOCKS: usize = 3;
/// What the third lock is called: it holds what a store's own keys hold. Of the two before it, one is
/// the beginning of the other.
const ODD_NAMES: [&str; 3] = ["a/EX/%2F", "a:{b}c\u{1}m", "a.=2E*>\u{1}"];
const LABEL: &str = "a label with \"quotes\" and\nlines";
const STAMP: Stamp = Stamp {
    order: 1,
    millis: 0,
};

/// The contract's table, and not the function that the library asks.
pub(crate) fn beside(one: Mode, other: Mode) -> bool {
    COMPATIBLE[one.index()][other.index()]
}

/// What the store should hold. Claims go by their numbers, which are never used twice in a history.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    odd_name: &'static str,
    /// Which session each client has now; they are numbered, too.
    pub(crate) sessions: [u64; CLIENTS],
    opened: u64,
    next: u64,
    /// Every claim ever made by the sessions that live.
    pub(crate) claims: BTreeMap<u64, Asked>,
    pub(crate) locks: [Lock; LOCKS],
    /// The claims that waited and were granted.
    pub(crate) called: BTreeSet<u64>,
    /// The claims that were granted while another session waited for them.
    pub(crate) contended: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) client: usize,
    pub(crate) session: u64,
    pub(crate) lock: usize,
    pub(crate) mode: Mode,
    /// Withdrawn while a request could be on its way: it stays withdrawn.
    marked: bool,
    /// Withdrawn when nothing was on its way, so nobody requests it again.
    retired: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Lock {
    /// The claims in their order of arrival.
    queue: Vec<u64>,
    pub(crate) table: LockTable,
}

/// What happens next. A step says no more than is needed, so that a history stays one when others before
/// it are left out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Request {
        number: u64,
        client: usize,
        lock: usize,
        mode: Mode,
        wait: Wait,
        /// The claim is withdrawn before its request arrives.
        late: bool,
    },
    Repeat {
        number: u64,
        wait: Wait,
    },
    Withdraw {
        number: u64,
        attempts: Attempts,
    },
    /// A claim is withdrawn and another one of the same client and lock requested, in one operation.
    Replace {
        leaving: u64,
        number: u64,
        mode: Mode,
    },
    Status {
        number: u64,
    },
    /// A client's session ends, with all of its claims, and another one takes its place.
    Reopen {
        client: usize,
    },
}

impl ReferenceStateMachine for Model {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        select(ODD_NAMES.as_slice()).prop_map(Model::new).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        let number = model.next;
        let wait = || prop_oneof![3 => Just(Wait::InTurn), 1 => Just(Wait::Never)];
        let who = (
            0..CLIENTS,
            0..LOCKS,
            select(Mode::ALL.as_slice()),
            wait(),
            proptest::bool::weighted(0.125),
        );
        let request = who.prop_map(move |(client, lock, mode, wait, late)| Step::Request {
            number,
            client,
            lock,
            mode,
            wait,
            late,
        });
        let known: Vec<u64> = model.claims.keys().copied().collect();
        if known.is_empty() {
            return request.boxed();
        }
        let queues = model.locks.iter().flat_map(|lock| &lock.queue);
        let present: Vec<u64> = queues.copied().collect();
        let leaving = if present.is_empty() { &known } else { &present };
        let replace = (select(leaving.clone()), select(Mode::ALL.as_slice()));
        let replace = replace.prop_map(move |(leaving, mode)| Step::Replace {
            leaving,
            number,
            mode,
        });
        let attempts = || prop_oneof![Just(Attempts::Answered), Just(Attempts::Unanswered)];
        let withdraw = |numbers: &[u64]| {
            let step = |(number, attempts)| Step::Withdraw { number, attempts };
            (select(numbers.to_vec()), attempts()).prop_map(step)
        };
        prop_oneof![
            9 => request,
            2 => (select(known.clone()), wait())
                .prop_map(|(number, wait)| Step::Repeat { number, wait }),
            6 => withdraw(leaving),
            3 => replace,
            1 => withdraw(&known),
            1 => select(known).prop_map(|number| Step::Status { number }),
            1 => (0..CLIENTS).prop_map(|client| Step::Reopen { client }),
        ]
        .boxed()
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        match step {
            Step::Request { .. } | Step::Reopen { .. } => true,
            // Nobody learns from a withdraw with all attempts answered that the claim may come back, so
            // such a claim is not requested again.
            Step::Repeat { number, .. } => {
                let asked = model.claims.get(number);
                asked.is_some_and(|asked| asked.marked || !asked.retired)
            }
            Step::Withdraw { number, .. }
            | Step::Replace {
                leaving: number, ..
            }
            | Step::Status { number } => model.claims.contains_key(number),
        }
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        match *step {
            Step::Request {
                number,
                client,
                lock,
                mode,
                wait,
                late,
            } => {
                model.make(number, client, lock, mode);
                if late {
                    model.withdraw(number, Attempts::Unanswered);
                }
                model.request(number, wait);
            }
            Step::Repeat { number, wait } => model.request(number, wait),
            Step::Withdraw { number, attempts } => model.withdraw(number, attempts),
            Step::Replace {
                leaving,
                number,
                mode,
            } => {
                let (client, lock) = (model.claims[&leaving].client, model.claims[&leaving].lock);
                model.withdraw(leaving, Attempts::Answered);
                model.make(number, client, lock, mode);
                model.request(number, Wait::InTurn);
            }
            Step::Status { .. } => {}
            Step::Reopen { client } => model.reopen(client),
        }
        model.note_contention();
        model
    }
}

impl Model {
    fn new(odd_name: &'static str) -> Self {
        Self {
            odd_name,
            sessions: [0, 1, 2, 3],
            opened: 4,
            next: 1,
            claims: BTreeMap::new(),
            locks: Default::default(),
            called: BTreeSet::new(),
            contended: BTreeSet::new(),
        }
    }

    pub(crate) fn lock_name(&self, lock: usize) -> &'static str {
        ["a", "aa", self.odd_name][lock]
    }

    /// The claim as the tables of the model know it.
    pub(crate) fn id(&self, number: u64) -> ClaimId {
        let session = SessionId::from(u128::from(self.claims[&number].session));
        ClaimId { session, number }
    }

    /// Whether the claim is granted, `None` if it is not there: it is when it is compatible with every
    /// claim ahead of it, waiting ones included (FAIR).
    pub(crate) fn granted(&self, number: u64) -> Option<bool> {
        let asked = self.claims.get(&number)?;
        let queue = &self.locks[asked.lock].queue;
        let place = queue.iter().position(|other| *other == number)?;
        let ahead = &queue[..place];
        Some(ahead.iter().all(|ahead| self.may_be_beside(*ahead, number)))
    }

    fn may_be_beside(&self, one: u64, other: u64) -> bool {
        beside(self.claims[&one].mode, self.claims[&other].mode)
    }

    /// The claims of a lock that are granted, or wait.
    pub(crate) fn queue(&self, lock: usize, granted: bool) -> Vec<u64> {
        let queue = self.locks[lock].queue.iter().copied();
        queue
            .filter(|number| self.granted(*number) == Some(granted))
            .collect()
    }

    fn make(&mut self, number: u64, client: usize, lock: usize, mode: Mode) {
        let asked = Asked {
            client,
            session: self.sessions[client],
            lock,
            mode,
            marked: false,
            retired: false,
        };
        self.claims.insert(number, asked);
        self.next = number + 1;
    }

    fn request(&mut self, number: u64, wait: Wait) {
        let asked = &self.claims[&number];
        let queue = &self.locks[asked.lock].queue;
        let free = || queue.iter().all(|other| self.may_be_beside(*other, number));
        if asked.marked || queue.contains(&number) || (wait == Wait::Never && !free()) {
            return;
        }
        let (id, lock, mode) = (self.id(number), asked.lock, asked.mode);
        self.locks[lock].queue.push(number);
        self.locks[lock].table.request(id, mode, &owner(), STAMP);
    }

    fn withdraw(&mut self, number: u64, attempts: Attempts) {
        let id = self.id(number);
        if let Some(asked) = self.claims.get_mut(&number) {
            match attempts {
                Attempts::Unanswered => asked.marked = true,
                Attempts::Answered => asked.retired = true,
            }
        }
        let lock = self.claims[&number].lock;
        self.locks[lock].table.withdraw(id, STAMP);
        self.leave(lock, |other| other == number);
    }

    fn reopen(&mut self, client: usize) {
        let ended = self.sessions[client];
        for lock in 0..LOCKS {
            let table = &mut self.locks[lock].table;
            table.expire(SessionId::from(u128::from(ended)), STAMP);
            let claims = self.claims.clone();
            self.leave(lock, |other| claims[&other].session == ended);
        }
        self.claims.retain(|_, asked| asked.session != ended);
        self.sessions[client] = self.opened;
        self.opened += 1;
    }

    /// Takes claims out of the queue, and notes whom that grants.
    fn leave(&mut self, lock: usize, leaves: impl Fn(u64) -> bool) {
        let waited = self.queue(lock, false);
        self.locks[lock].queue.retain(|number| !leaves(*number));
        let granted = |number: &u64| self.granted(*number) == Some(true);
        let called: Vec<u64> = waited.into_iter().filter(granted).collect();
        self.called.extend(called);
    }

    fn note_contention(&mut self) {
        for lock in 0..LOCKS {
            let waiting = self.queue(lock, false);
            for holder in self.queue(lock, true) {
                let session = self.claims[&holder].session;
                let waits_for_it = |waiter: &u64| {
                    self.claims[waiter].session != session && !self.may_be_beside(holder, *waiter)
                };
                if waiting.iter().any(waits_for_it) {
                    self.contended.insert(holder);
                }
            }
        }
    }

    /// What a step does, for people. It is asked before the step.
    fn told(&self, step: &Step) -> String {
        let known = |number: &u64| {
            let asked = &self.claims[number];
            let (who, mode) = (client_name(asked.client), asked.mode);
            (
                who,
                format!("{number} ({mode} of {:?})", self.lock_name(asked.lock)),
            )
        };
        let how = |wait: &Wait| match wait {
            Wait::InTurn => "in turn",
            Wait::Never => "without waiting",
        };
        match step {
            Step::Request {
                number,
                client,
                lock,
                mode,
                wait,
                late,
            } => {
                let (who, lock) = (client_name(*client), self.lock_name(*lock));
                let late = if *late {
                    ", after it has withdrawn that claim"
                } else {
                    ""
                };
                let how = how(wait);
                format!("{who} requests {number}: {mode} of {lock:?}, {how}{late}")
            }
            Step::Repeat { number, wait } => {
                let (who, claim) = known(number);
                format!("{who} requests {claim} again, {}", how(wait))
            }
            Step::Withdraw { number, attempts } => {
                let (who, claim) = known(number);
                format!("{who} withdraws {claim}, {attempts:?}")
            }
            Step::Replace {
                leaving,
                number,
                mode,
            } => {
                let (who, claim) = known(leaving);
                format!("{who} replaces {claim} by {number} in {mode}")
            }
            Step::Status { number } => {
                let (who, claim) = known(number);
                format!("{who} asks for the status of {claim}")
            }
            Step::Reopen { client } => {
                let who = client_name(*client);
                format!("{who} closes its session and opens another one")
            }
        }
    }

    /// Whether these steps can be taken one after the other.
    pub(crate) fn allows(&self, steps: &[Step]) -> bool {
        let mut model = self.clone();
        for step in steps {
            if !Model::preconditions(&model, step) {
                return false;
            }
            model = Model::apply(model, step);
        }
        true
    }

    /// The steps of a history, for people.
    pub(crate) fn told_all(mut self, steps: &[Step]) -> String {
        let mut text = String::new();
        for (place, step) in steps.iter().enumerate() {
            let _ = writeln!(text, "{:4}. {}", place + 1, self.told(step));
            self = Model::apply(self, step);
        }
        text
    }
}

pub(crate) fn owner() -> Owner {
    Owner {
        host: "a host".to_owned(),
        pid: 1,
        label: LABEL.to_owned(),
    }
}

pub(crate) fn client_name(client: usize) -> &'static str {
    ["A", "B", "C", "D"][client]
}
