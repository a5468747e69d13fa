//! The store itself: lock tables, leases, and what is pushed to whom.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::link::{MemoryLink, Path};
use crate::mutants::{Mutant, is_on};
use crate::sync::Mutex;
use crate::table::{Entry, Granted, LockTable, Stamp};
use crate::url::{Host, StoreUrl};
use crate::{
    Attempts, Claim, ClaimId, ClaimSnapshot, Clock, ConfigError, LockName, LockSnapshot, Mailbox,
    Moment, Namespace, Outcome, SessionId, SessionTerms, StoreError, SystemClock, Wait,
};

/// A store in this process's memory. Clones are the same store.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

/// What a store has been asked since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operations {
    /// Sessions opened.
    pub opens: u64,
    /// Leases renewed, or found gone.
    pub renewals: u64,
    /// Requests for a lock.
    pub requests: u64,
    /// Looks at the state of a claim.
    pub looks: u64,
    /// Claims withdrawn.
    pub withdraws: u64,
    /// Claims withdrawn and others requested in one operation. Each is among the requests and the withdraws,
    /// too.
    pub replacements: u64,
    /// Sessions closed.
    pub closes: u64,
    /// Pushes sent to clients.
    pub pushes: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    tables: BTreeMap<LockName, LockTable>,
    leases: HashMap<SessionId, Lease>,
    /// The greatest number given out in any table's order: tables are forgotten when they are empty.
    last: u64,
    pub(super) operations: Operations,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    lapses: Moment,
    mailbox: Mailbox,
    path: Arc<Path>,
    /// Claims that were withdrawn while a request for them could still arrive (ONCE).
    withdrawn: HashSet<ClaimId>,
}

impl MemoryStore {
    /// An empty store on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store on this clock: for tests, with the clock of its clients.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    /// The store of this name in this process: the same for everybody who asks while somebody uses it,
    /// and the one that `memory://NAME` connects to.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::named_in(name, Namespace::default())
    }

    /// The same, in another namespace than the default one.
    #[must_use]
    pub fn named_in(name: &str, namespace: Namespace) -> Self {
        type Names = BTreeMap<(String, Namespace), Weak<Mutex<State>>>;
        static NAMED: std::sync::Mutex<Names> = std::sync::Mutex::new(BTreeMap::new());
        let key = (name.to_owned(), namespace);
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, state| state.strong_count() > 0);
        if let Some(state) = named.get(&key).and_then(Weak::upgrade) {
            return Self {
                clock: Arc::new(SystemClock),
                state,
            };
        }
        let store = Self::new();
        named.insert(key, Arc::downgrade(&store.state));
        store
    }

    /// The store that a URL means: `memory://` is a store of its own, and `memory://NAME` the one of
    /// that name in this process. The option `namespace` works as on every store.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the URL holds something that a store in memory has no use for.
    pub fn from_url(url: &mut StoreUrl) -> Result<Self, ConfigError> {
        let namespace = url.take("namespace").map(Namespace::new).transpose();
        let namespace = namespace.map_err(|error| {
            ConfigError::new("option namespace", error.to_string(), "choose another")
        })?;
        let fault = |what: &str| {
            let fault = format!("memory:// has no use for {what}");
            Err(ConfigError::new(
                "store URL",
                fault,
                "it reads memory:// or memory://NAME",
            ))
        };
        if url.user().is_some() || url.password().is_some() {
            return fault("a user or a password");
        }
        if !url.path().is_empty() {
            return fault("a path");
        }
        match url.hosts() {
            [] => Ok(Self::new()),
            [Host { name, port: None }] => Ok(Self::named_in(name, namespace.unwrap_or_default())),
            [Host { port: Some(_), .. }] => fault("a port"),
            _ => fault("several hosts"),
        }
    }

    /// A way to the store for one more client, with faults of its own.
    #[must_use]
    pub fn link(&self) -> MemoryLink {
        MemoryLink::new(self.clone())
    }

    /// What the store has been asked so far.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.with(|state, _| state.operations)
    }

    /// Loses all data, as a server without persistence does when it restarts. Tokens go on rising, as
    /// they would on a server, where the calendar has moved on meanwhile (FENCE).
    pub fn wipe(&self) {
        self.with(|state, _| {
            let (operations, last) = (state.operations, state.last);
            *state = State {
                operations,
                last,
                ..State::default()
            };
        });
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// One atomic step. Leases that have run out are gone before it.
    pub(super) fn with<T>(&self, step: impl FnOnce(&mut State, Moment) -> T) -> T {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reap(now, self.clock.wall());
        step(&mut state, now)
    }

    pub(super) fn stamp(&self, state: &State) -> Stamp {
        state.stamp(self.clock.wall())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn stamp(&self, wall: SystemTime) -> Stamp {
        let since_1970 = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since_1970.as_micros()).unwrap_or(0);
        Stamp {
            order: match is_on(Mutant::TokensFromZero) {
                true => self.last + 1,
                false => micros.max(self.last + 1),
            },
            millis: micros / 1000,
        }
    }

    fn reap(&mut self, now: Moment, wall: SystemTime) {
        let lapsed: Vec<SessionId> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.lapses <= now)
            .map(|(session, _)| *session)
            .collect();
        for session in lapsed {
            let stamp = self.stamp(wall);
            self.end(session, stamp);
        }
    }

    pub(super) fn open(
        &mut self,
        terms: &SessionTerms,
        mailbox: Mailbox,
        path: Arc<Path>,
        now: Moment,
    ) {
        self.operations.opens += 1;
        let lapses = now + terms.ttl;
        let lease = Lease {
            ttl: terms.ttl,
            lapses,
            mailbox,
            path,
            withdrawn: HashSet::new(),
        };
        self.leases.insert(terms.id, lease);
    }

    pub(super) fn renew(
        &mut self,
        session: SessionId,
        now: Moment,
    ) -> Result<Duration, StoreError> {
        self.operations.renewals += 1;
        let lease = self
            .leases
            .get_mut(&session)
            .ok_or_else(StoreError::lapsed)?;
        lease.lapses = now + lease.ttl;
        Ok(lease.ttl)
    }

    pub(super) fn request(
        &mut self,
        claim: &Claim,
        wait: Wait,
        stamp: Stamp,
        now: Moment,
    ) -> Result<Outcome, StoreError> {
        self.operations.requests += 1;
        let lease = self
            .leases
            .get(&claim.id.session)
            .ok_or_else(StoreError::lapsed)?;
        if lease.withdrawn.contains(&claim.id) && !is_on(Mutant::ForgottenWithdraw) {
            return Ok(Outcome::Absent);
        }
        let table = self.tables.entry(claim.name.clone()).or_default();
        if wait == Wait::Never && table.get(claim.id).is_none() && !table.admits(claim.mode) {
            return Ok(Outcome::Absent);
        }
        let known = table.get(claim.id).is_some();
        let token = table.request(claim.id, claim.mode, &claim.owner, stamp);
        self.last = self.last.max(table.last());
        if token.is_none() && !known {
            // Other sessions' claims that this one waits for: their holders are told.
            let blocking: Vec<ClaimId> = table
                .blockers(claim.id)
                .filter(|entry| entry.token.is_some() && entry.id.session != claim.id.session)
                .map(|e| e.id)
                .collect();
            for holder in blocking {
                self.push(holder.session, |mailbox| mailbox.contended(holder));
            }
        }
        Ok(self.outcome(claim, now))
    }

    pub(super) fn status(&mut self, claim: &Claim, now: Moment) -> Result<Outcome, StoreError> {
        self.operations.looks += 1;
        if !self.leases.contains_key(&claim.id.session) {
            return Err(StoreError::lapsed());
        }
        Ok(self.outcome(claim, now))
    }

    fn outcome(&self, claim: &Claim, now: Moment) -> Outcome {
        let table = self.tables.get(&claim.name);
        let Some(entry) = table.and_then(|table| table.get(claim.id)) else {
            return Outcome::Absent;
        };
        if let Some(token) = entry.token {
            return Outcome::Granted { token };
        }
        let blockers = table.into_iter().flat_map(|table| table.blockers(claim.id));
        let lapses = blockers.filter_map(|blocker| self.leases.get(&blocker.id.session));
        let first = lapses.map(|lease| lease.lapses).min();
        Outcome::Waiting {
            look_after: first.map(|lapses| lapses.since(now)),
        }
    }

    pub(super) fn withdraw(
        &mut self,
        claim: &Claim,
        attempts: Attempts,
        stamp: Stamp,
    ) -> Result<(), StoreError> {
        self.operations.withdraws += 1;
        let lease = self
            .leases
            .get_mut(&claim.id.session)
            .ok_or_else(StoreError::lapsed)?;
        if attempts == Attempts::Unanswered {
            lease.withdrawn.insert(claim.id);
        }
        self.change(&claim.name, |table| table.withdraw(claim.id, stamp));
        Ok(())
    }

    /// Ends a session and frees its claims.
    pub(super) fn end(&mut self, session: SessionId, stamp: Stamp) {
        self.leases.remove(&session);
        let names: Vec<LockName> = self.tables.keys().cloned().collect();
        for name in names {
            self.change(&name, |table| table.expire(session, stamp));
        }
    }

    /// The sessions that were opened over this path.
    pub(super) fn sessions_of(&self, path: &Arc<Path>) -> Vec<SessionId> {
        let over = self
            .leases
            .iter()
            .filter(|(_, lease)| Arc::ptr_eq(&lease.path, path));
        over.map(|(session, _)| *session).collect()
    }

    /// Changes a table and tells those whom that grants.
    fn change(&mut self, name: &LockName, change: impl FnOnce(&mut LockTable) -> Vec<Granted>) {
        let Some(table) = self.tables.get_mut(name) else {
            return;
        };
        let granted = change(table);
        self.last = self.last.max(table.last());
        let contended: Vec<bool> = granted
            .iter()
            .map(|granted| table.is_contended(granted.id))
            .collect();
        if table.is_empty() {
            self.tables.remove(name);
        }
        for (granted, contended) in granted.into_iter().zip(contended) {
            self.push(granted.id.session, |mailbox| {
                mailbox.granted(granted.id, granted.token);
                if contended {
                    mailbox.contended(granted.id);
                }
            });
        }
    }

    fn push(&mut self, session: SessionId, push: impl FnOnce(&Mailbox)) {
        let Some(lease) = self.leases.get(&session) else {
            return;
        };
        self.operations.pushes += 1;
        if lease.path.carries_pushes() {
            push(&lease.mailbox);
        }
    }

    pub(super) fn inspect(&self, name: &LockName) -> LockSnapshot {
        let mut snapshot = LockSnapshot::free(name.clone());
        for entry in self
            .tables
            .get(name)
            .into_iter()
            .flat_map(LockTable::claims)
        {
            let side = match entry.token {
                Some(_) => &mut snapshot.holders,
                None => &mut snapshot.waiters,
            };
            side.push(shown(entry));
        }
        snapshot
    }

    pub(super) fn names(&self) -> Vec<LockName> {
        let used = self.tables.iter().filter(|(_, table)| !table.is_empty());
        used.map(|(name, _)| name.clone()).collect()
    }
}

fn shown(entry: &Entry) -> ClaimSnapshot {
    ClaimSnapshot {
        id: entry.id,
        mode: entry.mode,
        owner: entry.owner.clone(),
        since: UNIX_EPOCH + Duration::from_millis(entry.since),
        token: entry.token,
        kept: false,
    }
}
