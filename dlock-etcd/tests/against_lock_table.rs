//! The transactions against the lock table: random histories through both, compared after each step.
//!
//! ATOM-A, FAIR: the same claims are granted and wait, in the same order. FENCE: tokens of
//! conflicting grants rise. ONCE: repeated requests and withdrawn claims. WAKE: whoever a step
//! grants is told, and nobody else.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{HashMap, HashSet};

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{Attempts, Backend, Claim, ClaimId, FencingToken, Mode, Outcome, Push, Wait};
use dlock_etcd::Etcd;
use futures_util::FutureExt;
use support::{Client, LONG, Server};

/// One is the beginning of the other, and one holds what the keys hold.
const NAMES: [&str; 3] = ["a", "aa", "a/EX/%2F"];

struct History {
    backend: Etcd,
    random: fastrand::Rng,
    clients: Vec<Client>,
    tables: HashMap<&'static str, LockTable>,
    /// Every claim ever made by the sessions that live.
    claims: Vec<(usize, Claim)>,
    withdrawn: HashSet<ClaimId>,
    stamp: Stamp,
    /// The claims that waited and were granted: their pushes must come.
    granted: HashSet<ClaimId>,
    tokens: HashMap<ClaimId, FencingToken>,
    newest: HashMap<&'static str, [u64; 6]>,
    pushed: HashSet<ClaimId>,
}

impl History {
    async fn new(backend: &Etcd, seed: u64) -> Self {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(Client::open(backend, LONG).await);
        }
        Self {
            backend: backend.clone(),
            random: fastrand::Rng::with_seed(seed),
            clients,
            tables: HashMap::new(),
            claims: Vec::new(),
            withdrawn: HashSet::new(),
            stamp: Stamp {
                order: 1,
                millis: 0,
            },
            granted: HashSet::new(),
            tokens: HashMap::new(),
            newest: HashMap::new(),
            pushed: HashSet::new(),
        }
    }

    async fn step(&mut self) {
        match self.random.u8(0..20) {
            0..9 => {
                let by = self.random.usize(0..self.clients.len());
                let name = NAMES[self.random.usize(0..NAMES.len())];
                let mode = Mode::ALL[self.random.usize(0..6)];
                let claim = self.clients[by].claim(name, mode);
                self.claims.push((by, claim.clone()));
                if self.random.u8(0..8) == 0 {
                    // Withdrawn before it arrives.
                    self.withdraw(by, &claim, Attempts::Unanswered).await;
                }
                self.request(by, &claim).await;
            }
            9..11 => {
                if let Some((by, claim)) = self.any_claim() {
                    self.request(by, &claim).await;
                }
            }
            11..18 => {
                if let Some((by, claim)) = self.any_claim() {
                    let attempts = if self.random.bool() {
                        Attempts::Answered
                    } else {
                        Attempts::Unanswered
                    };
                    self.withdraw(by, &claim, attempts).await;
                }
            }
            18 => {
                if let Some((by, claim)) = self.any_claim() {
                    let outcome = self.clients[by].session().status(&claim).await.unwrap();
                    self.check_outcome(&claim, outcome);
                }
            }
            _ => self.end_session().await,
        }
        self.check().await;
    }

    fn any_claim(&mut self) -> Option<(usize, Claim)> {
        let place = self.random.usize(0..self.claims.len().max(1));
        self.claims.get(place).cloned()
    }

    fn table(&mut self, claim: &Claim) -> &mut LockTable {
        let name = NAMES.into_iter().find(|name| *name == claim.name.as_str());
        self.tables.entry(name.unwrap()).or_default()
    }

    async fn request(&mut self, by: usize, claim: &Claim) {
        let wait = if self.random.u8(0..4) == 0 {
            Wait::Never
        } else {
            Wait::InTurn
        };
        let session = self.clients[by].session();
        let outcome = session.request(claim, wait).await.unwrap();
        let stamp = self.stamp;
        let withdrawn = self.withdrawn.contains(&claim.id);
        let table = self.table(claim);
        let enters = table.admits(claim.mode) || wait == Wait::InTurn;
        if !withdrawn && (enters || table.get(claim.id).is_some()) {
            table.request(claim.id, claim.mode, &claim.owner, stamp);
        }
        self.check_outcome(claim, outcome);
    }

    /// Nobody learns from a withdraw with all attempts answered that the claim may come back, so
    /// here such a claim is not requested again.
    async fn withdraw(&mut self, by: usize, claim: &Claim, attempts: Attempts) {
        let session = self.clients[by].session();
        session.withdraw(claim, attempts).await.unwrap();
        let stamp = self.stamp;
        let granted = self.table(claim).withdraw(claim.id, stamp);
        self.granted.extend(granted.iter().map(|grant| grant.id));
        match attempts {
            Attempts::Unanswered => {
                self.withdrawn.insert(claim.id);
            }
            Attempts::Answered if !self.withdrawn.contains(&claim.id) => {
                self.claims.retain(|(_, other)| other.id != claim.id);
            }
            Attempts::Answered => {}
        }
    }

    /// A session ends, with all of its claims in one step, and another one takes its place.
    async fn end_session(&mut self) {
        let by = self.random.usize(0..self.clients.len());
        let ended = self.clients[by].id;
        self.check_pushes_of(by).await;
        self.clients[by].session().close().await.unwrap();
        let stamp = self.stamp;
        for table in self.tables.values_mut() {
            let granted = table.expire(ended, stamp);
            self.granted.extend(granted.iter().map(|grant| grant.id));
        }
        self.clients[by] = Client::open(&self.backend, LONG).await;
        self.claims.retain(|(_, claim)| claim.id.session != ended);
    }

    fn check_outcome(&mut self, claim: &Claim, outcome: Outcome) {
        let entry = self.table(claim).get(claim.id).cloned();
        match (entry, outcome) {
            (None, Outcome::Absent) => {}
            (Some(entry), Outcome::Granted { token }) if entry.token.is_some() => {
                let known = self.tokens.get(&claim.id);
                assert!(known.is_none_or(|known| *known == token), "{claim:?}");
                // Who asks need not be told.
                if self.granted.remove(&claim.id) {
                    self.pushed.insert(claim.id);
                }
            }
            (Some(entry), Outcome::Waiting { look_after: None }) if entry.token.is_none() => {}
            (entry, outcome) => panic!("{claim:?}: {outcome:?}, and the table says {entry:?}"),
        }
    }

    async fn check(&mut self) {
        self.stamp.order += 10;
        let mut used = HashSet::new();
        for name in NAMES {
            let table = self.tables.entry(name).or_default();
            let found = self.backend.inspect(&support::name(name)).await.unwrap();
            let expected = |granted: bool| -> Vec<ClaimId> {
                let entries = table.claims();
                let entries = entries.filter(|entry| entry.token.is_some() == granted);
                entries.map(|entry| entry.id).collect()
            };
            let expected = (expected(true), expected(false));
            assert_eq!(support::ids(&found), expected, "{name}");
            if !table.is_empty() {
                used.insert(name.to_owned());
            }
            let newest = self.newest.entry(name).or_default();
            for holder in &found.holders {
                let token = holder.token.unwrap();
                assert_eq!(holder.owner.label, "a label with \"quotes\" and\nlines");
                if let Some(known) = self.tokens.insert(holder.id, token) {
                    assert_eq!(known, token, "a token never changes");
                    continue;
                }
                for mode in Mode::ALL
                    .into_iter()
                    .filter(|mode| !mode.compatible(holder.mode))
                {
                    let earlier = newest[mode.index()];
                    assert!(token.get() > earlier, "FENCE: {name} {holder:?}");
                }
                let mine = &mut newest[holder.mode.index()];
                *mine = token.get().max(*mine);
            }
        }
        let names = self.backend.names().await.unwrap();
        let names: HashSet<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, used);
    }

    /// All pushes that the steps called for have come, and no others.
    async fn check_pushes_of(&mut self, place: usize) {
        let id = self.clients[place].id;
        let mine = self.granted.iter().filter(|claim| claim.session == id);
        let still_there = |claim: &&ClaimId| self.claims.iter().any(|(_, c)| c.id == **claim);
        // Who left before the push came is not told.
        let there = |claim: &ClaimId| {
            self.tables
                .values()
                .any(|table| table.get(*claim).is_some())
        };
        let mine: HashSet<ClaimId> = mine
            .filter(still_there)
            .filter(|claim| there(claim))
            .copied()
            .collect();
        while !mine.is_subset(&self.pushed) {
            let push = self.clients[place].push().await;
            self.accept(push);
        }
        while let Some(Some(push)) = self.clients[place].inbox.next().now_or_never() {
            self.accept(push);
        }
    }

    fn accept(&mut self, push: Push) {
        match push {
            Push::Granted(claim, token) => {
                let known = self.granted.contains(&claim) || self.pushed.contains(&claim);
                assert!(known, "nobody granted {claim}");
                if let Some(known) = self.tokens.get(&claim) {
                    assert_eq!(token, *known);
                }
                self.pushed.insert(claim);
            }
            // It was withdrawn while its watch was being moved.
            Push::Changed(claim) => {
                let there = self.tables.values().any(|table| table.get(claim).is_some());
                assert!(!there, "a hint for {claim}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// CANCEL: the sessions that are over leave nothing behind.
async fn nothing_is_left(server: &Server, namespace: &str) {
    let all = etcd_client::GetOptions::new().with_prefix();
    let prefix = format!("dlock/{namespace}/");
    let found = server.raw().await.get(prefix, Some(all)).await.unwrap();
    let keys: Vec<&str> = (found.kvs().iter())
        .map(|key| key.key_str().unwrap())
        .collect();
    let expected = ["base", "format"].map(|key| format!("dlock/{namespace}/{key}"));
    assert_eq!(keys, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories() {
    let server = Server::start().await;
    for seed in 0..8 {
        let namespace = format!("seed-{seed}");
        let backend = server.connect(&format!("/{namespace}")).await.unwrap();
        let mut history = History::new(&backend, seed).await;
        eprintln!("seed {seed}");
        for _ in 0..200 {
            history.step().await;
        }
        for place in 0..history.clients.len() {
            history.check_pushes_of(place).await;
        }
        for client in &history.clients {
            client.session().close().await.unwrap();
        }
        nothing_is_left(&server, &namespace).await;
    }
}
