//! The documents against the lock table: random histories of several sessions on a real server,
//! compared after each step with one table that saw the same.
//!
//! ATOM-A, FAIR: the same claims are granted and wait, in the same order. FENCE: tokens of
//! conflicting grants rise. ONCE: repeated requests and withdrawn claims. WAKE: whoever a step
//! grants is told, and whoever holds is told that another session waits.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{HashMap, HashSet};

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{Attempts, Backend, Claim, ClaimId, FencingToken, Mode, Outcome, Push, Wait};
use dlock_jetstream::JetStream;
use futures_util::FutureExt;
use support::{Client, LONG, Raw, Server};

/// One is the beginning of the other, and one holds what the keys hold.
const NAMES: [&str; 3] = ["a", "aa", "a.=2E*>\u{1}"];

struct History {
    backend: JetStream,
    raw: Raw,
    random: fastrand::Rng,
    clients: Vec<Client>,
    tables: HashMap<&'static str, LockTable>,
    /// Every claim ever made by the sessions that live.
    claims: Vec<(usize, Claim)>,
    withdrawn: HashSet<ClaimId>,
    order: u64,
    /// The pushes that must have come, and those that may have: somebody died meanwhile.
    granted: HashSet<ClaimId>,
    contended: HashSet<ClaimId>,
    perhaps: HashSet<ClaimId>,
    tokens: HashMap<ClaimId, FencingToken>,
    newest: HashMap<&'static str, [u64; 6]>,
    pushed: HashSet<ClaimId>,
    warned: HashSet<ClaimId>,
}

impl History {
    async fn new(backend: &JetStream, raw: Raw, seed: u64) -> Self {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(Client::open(backend, LONG).await);
        }
        Self {
            backend: backend.clone(),
            raw,
            random: fastrand::Rng::with_seed(seed),
            clients,
            tables: HashMap::new(),
            claims: Vec::new(),
            withdrawn: HashSet::new(),
            order: 1,
            granted: HashSet::new(),
            contended: HashSet::new(),
            perhaps: HashSet::new(),
            tokens: HashMap::new(),
            newest: HashMap::new(),
            pushed: HashSet::new(),
            warned: HashSet::new(),
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            order: self.order,
            millis: 0,
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
                    let attempts = match self.random.bool() {
                        true => Attempts::Answered,
                        false => Attempts::Unanswered,
                    };
                    self.withdraw(by, &claim, attempts).await;
                }
            }
            18 => {
                if let Some((by, claim)) = self.any_claim() {
                    self.look(by, &claim).await;
                }
            }
            _ => self.expire().await,
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
        let wait = match self.random.u8(0..4) {
            0 => Wait::Never,
            _ => Wait::InTurn,
        };
        let session = self.clients[by].session();
        let mut outcome = session.request(claim, wait).await.unwrap();
        let stamp = self.stamp();
        let withdrawn = self.withdrawn.contains(&claim.id);
        let table = self.table(claim);
        let enters = table.admits(claim.mode) || wait == Wait::InTurn;
        if !withdrawn && (enters || table.get(claim.id).is_some()) {
            table.request(claim.id, claim.mode, &claim.owner, stamp);
        }
        // Behind a fresh grant nobody looks at once whether its session has died.
        if matches!(outcome, Outcome::Waiting { .. }) {
            outcome = self.clients[by].session().status(claim).await.unwrap();
        }
        self.check_outcome(claim, outcome);
    }

    async fn look(&mut self, by: usize, claim: &Claim) {
        let outcome = self.clients[by].session().status(claim).await.unwrap();
        self.check_outcome(claim, outcome);
    }

    /// Nobody learns from a withdraw with all attempts answered that the claim may come back, so
    /// here such a claim is not requested again.
    async fn withdraw(&mut self, by: usize, claim: &Claim, attempts: Attempts) {
        let session = self.clients[by].session();
        session.withdraw(claim, attempts).await.unwrap();
        let stamp = self.stamp();
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

    /// A session lapses. Nobody frees anything until somebody looks.
    async fn expire(&mut self) {
        let by = self.random.usize(0..self.clients.len());
        let lapsed = self.clients[by].id;
        self.raw.lapse(lapsed).await;
        let stamp = self.stamp();
        for table in self.tables.values_mut() {
            let granted = table.expire(lapsed, stamp);
            self.perhaps.extend(granted.iter().map(|grant| grant.id));
            // They may be told that the dead wait, too.
            self.perhaps.extend(table.claims().map(|claim| claim.id));
        }
        self.clients[by] = Client::open(&self.backend, LONG).await;
        self.claims.retain(|(_, claim)| claim.id.session != lapsed);
        for (by, claim) in self.claims.clone() {
            self.look(by, &claim).await;
        }
    }

    fn check_outcome(&mut self, claim: &Claim, outcome: Outcome) {
        let entry = self.table(claim).get(claim.id).cloned();
        match (entry, outcome) {
            (None, Outcome::Absent) => {}
            (Some(entry), Outcome::Granted { .. }) if entry.token.is_some() => {}
            (Some(entry), Outcome::Waiting { look_after }) if entry.token.is_none() => {
                assert!(look_after.is_some());
            }
            (entry, outcome) => panic!("{claim:?}: {outcome:?}, and the table says {entry:?}"),
        }
    }

    async fn check(&mut self) {
        self.order += 10;
        let mut used = HashSet::new();
        for name in NAMES {
            let table = self.tables.entry(name).or_default();
            let found = self.backend.inspect(&support::name(name)).await.unwrap();
            let expected = |granted: bool| -> Vec<ClaimId> {
                let claims = table.claims();
                let claims = claims.filter(|entry| entry.token.is_some() == granted);
                claims.map(|entry| entry.id).collect()
            };
            let both = (expected(true), expected(false));
            assert_eq!(support::ids(&found), both, "{name}");
            for entry in table.claims() {
                used.insert(name.to_owned());
                if entry.token.is_some() && table.is_contended(entry.id) {
                    self.contended.insert(entry.id);
                }
            }
            let newest = self.newest.entry(name).or_default();
            for holder in &found.holders {
                let token = holder.token.unwrap();
                assert_eq!(holder.owner.label, "a label with \"quotes\" and\nlines");
                if let Some(known) = self.tokens.insert(holder.id, token) {
                    assert_eq!(known, token, "a token never changes");
                    continue;
                }
                let rivals = Mode::ALL.into_iter();
                for mode in rivals.filter(|mode| !mode.compatible(holder.mode)) {
                    assert!(
                        token.get() > newest[mode.index()],
                        "FENCE: {name} {holder:?}"
                    );
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
    async fn check_pushes(&mut self) {
        for place in 0..self.clients.len() {
            let id = self.clients[place].id;
            let mine = |claims: &HashSet<ClaimId>| -> HashSet<ClaimId> {
                let mine = claims.difference(&self.perhaps);
                mine.filter(|claim| claim.session == id).copied().collect()
            };
            let (granted, contended) = (mine(&self.granted), mine(&self.contended));
            while !(granted.is_subset(&self.pushed) && contended.is_subset(&self.warned)) {
                let push = self.clients[place].push().await;
                self.accept(push);
            }
            while let Some(Some(push)) = self.clients[place].inbox.next().now_or_never() {
                self.accept(push);
            }
        }
    }

    fn accept(&mut self, push: Push) {
        match push {
            Push::Granted(claim, token) => {
                let known = self.granted.contains(&claim) || self.perhaps.contains(&claim);
                assert!(known, "nobody granted {claim}");
                if let Some(known) = self.tokens.get(&claim) {
                    assert_eq!(token, *known);
                }
                self.pushed.insert(claim);
            }
            Push::Contended(claim) => {
                let known = self.contended.contains(&claim) || self.perhaps.contains(&claim);
                assert!(known, "nobody else waits for {claim}");
                self.warned.insert(claim);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn random_histories() {
    let server = Server::start().await;
    for seed in 0..5 {
        let namespace = format!("seed-{seed}");
        let backend = server.connect(&format!("/{namespace}")).await.unwrap();
        let raw = Raw {
            client: server.raw().await.client,
            bucket: format!("dlock-{namespace}"),
        };
        let mut history = History::new(&backend, raw, seed).await;
        eprintln!("seed {seed}");
        for _ in 0..120 {
            history.step().await;
        }
        history.check_pushes().await;
        for client in &history.clients {
            client.session().close().await.unwrap();
        }
        // CANCEL: nobody is left in any document.
        assert_eq!(backend.names().await.unwrap(), []);
    }
}
