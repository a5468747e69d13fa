//! The scripts against the lock table: random histories through both, compared after each step.
//!
//! ATOM-A, FAIR: the same claims are granted and wait, in the same order. FENCE: tokens of
//! conflicting grants rise. ONCE: repeated requests and withdrawn claims. WAKE: whoever a step
//! grants is told, and whoever holds is told that another session waits, then and only then.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{Attempts, Backend, Claim, ClaimId, FencingToken, Mode, Outcome, Push, Wait};
use dlock_redis::Redis;
use futures_util::FutureExt;
use support::{Client, IMAGES, Raw, Server};

const TTL: Duration = Duration::from_secs(600);
/// One is the beginning of the other, and one holds what the keys and the index hold.
const NAMES: [&str; 3] = ["a", "aa", "a:{b}c\u{1}m"];

struct History {
    backend: Redis,
    raw: Raw,
    tag: String,
    random: fastrand::Rng,
    clients: Vec<Client>,
    tables: HashMap<&'static str, LockTable>,
    /// Every claim ever made by the sessions that live.
    claims: Vec<(usize, Claim)>,
    withdrawn: HashSet<ClaimId>,
    stamp: Stamp,
    /// The pushes that must have come, and those that may have.
    granted: HashSet<ClaimId>,
    perhaps_granted: HashSet<ClaimId>,
    contended: HashSet<ClaimId>,
    tokens: HashMap<ClaimId, FencingToken>,
    newest: HashMap<&'static str, [u64; 6]>,
    pushed: HashSet<ClaimId>,
    warned: HashSet<ClaimId>,
}

impl History {
    async fn new(backend: &Redis, raw: Raw, namespace: &str, seed: u64) -> Self {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(Client::open(backend, TTL).await);
        }
        Self {
            backend: backend.clone(),
            raw,
            tag: format!("{namespace}.0"),
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
            perhaps_granted: HashSet::new(),
            contended: HashSet::new(),
            tokens: HashMap::new(),
            newest: HashMap::new(),
            pushed: HashSet::new(),
            warned: HashSet::new(),
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
        let wait = if self.random.u8(0..4) == 0 {
            Wait::Never
        } else {
            Wait::InTurn
        };
        let outcome = self.clients[by]
            .session()
            .request(claim, wait)
            .await
            .unwrap();
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

    /// A session lapses. Nobody frees anything until somebody looks or leaves.
    async fn expire(&mut self) {
        let by = self.random.usize(0..self.clients.len());
        let lapsed = self.clients[by].id;
        self.raw.lapse(&self.tag, lapsed).await;
        let stamp = self.stamp;
        for table in self.tables.values_mut() {
            let granted = table.expire(lapsed, stamp);
            self.granted.extend(granted.iter().map(|grant| grant.id));
        }
        self.clients[by] = Client::open(&self.backend, TTL).await;
        self.claims.retain(|(_, claim)| claim.id.session != lapsed);
        for name in NAMES {
            let claims: Vec<(usize, Claim)> = (self.claims.iter())
                .filter(|(_, claim)| claim.name.as_str() == name)
                .cloned()
                .collect();
            let there = claims
                .iter()
                .find(|(_, claim)| self.tables[name].get(claim.id).is_some());
            // Somebody who leaves finds out, or whoever waits.
            if let Some((by, claim)) = there
                && self.random.bool()
            {
                // Whom the lapse alone would have granted leaves before anybody looks, unless the new
                // session's sweep was quicker.
                if !self.tokens.contains_key(&claim.id) && self.granted.remove(&claim.id) {
                    self.perhaps_granted.insert(claim.id);
                }
                self.withdraw(*by, claim, Attempts::Unanswered).await;
                continue;
            }
            for (by, claim) in claims {
                let outcome = self.clients[by].session().status(&claim).await.unwrap();
                self.check_outcome(&claim, outcome);
            }
        }
    }

    fn check_outcome(&mut self, claim: &Claim, outcome: Outcome) {
        let entry = self.table(claim).get(claim.id).cloned();
        match (entry, outcome) {
            (None, Outcome::Absent) => {}
            (Some(entry), Outcome::Granted { .. }) if entry.token.is_some() => {}
            (Some(entry), Outcome::Waiting { look_after }) if entry.token.is_none() => {
                let look_after = look_after.unwrap();
                assert!(look_after > Duration::ZERO && look_after <= TTL + Duration::from_secs(1));
            }
            (entry, outcome) => panic!("{claim:?}: {outcome:?}, and the table says {entry:?}"),
        }
    }

    async fn check(&mut self) {
        self.stamp.order += 10;
        let mut used = HashSet::new();
        for name in NAMES {
            let table = self.tables.entry(name).or_default();
            let found = self.backend.inspect(&support::name(name)).await.unwrap();
            let (holders, waiters) = support::ids(&found);
            let expected = |granted: bool| -> Vec<ClaimId> {
                table
                    .claims()
                    .filter(|entry| entry.token.is_some() == granted)
                    .map(|entry| entry.id)
                    .collect()
            };
            assert_eq!(
                (holders, waiters),
                (expected(true), expected(false)),
                "{name}"
            );
            for entry in table.claims() {
                used.insert(name);
                let rivals = table.claims().filter(|other| {
                    other.token.is_none()
                        && !other.mode.compatible(entry.mode)
                        && other.id.session != entry.id.session
                });
                if entry.token.is_some() && rivals.count() > 0 {
                    self.contended.insert(entry.id);
                }
            }
            let newest = self.newest.entry(name).or_default();
            for holder in &found.holders {
                let token = holder.token.unwrap();
                assert_eq!(holder.owner.label, "a label with \"quotes\" and\nlines");
                if self.tokens.insert(holder.id, token).is_none() {
                    for mode in Mode::ALL
                        .into_iter()
                        .filter(|mode| !mode.compatible(holder.mode))
                    {
                        assert!(
                            token.get() > newest[mode.index()],
                            "FENCE: {name} {holder:?}"
                        );
                    }
                    let mine = &mut newest[holder.mode.index()];
                    *mine = token.get().max(*mine);
                } else {
                    assert_eq!(self.tokens[&holder.id], token, "a token never changes");
                }
            }
        }
        let names: HashSet<String> = self
            .backend
            .names()
            .await
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, used.into_iter().map(str::to_owned).collect());
    }

    /// All pushes that the steps called for have come, and no others.
    async fn check_pushes(&mut self) {
        for place in 0..self.clients.len() {
            let id = self.clients[place].id;
            let mine = |claims: &HashSet<ClaimId>| -> HashSet<ClaimId> {
                let mine = claims.iter().filter(|claim| claim.session == id);
                mine.copied().collect()
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
        let perhaps = &self.perhaps_granted;
        match push {
            Push::Granted(claim, token) => {
                let known = self.granted.contains(&claim) || perhaps.contains(&claim);
                assert!(known, "nobody granted {claim}");
                if let Some(known) = self.tokens.get(&claim) {
                    assert_eq!(token, *known);
                }
                self.pushed.insert(claim);
            }
            Push::Contended(claim) => {
                let known = self.contended.contains(&claim) || perhaps.contains(&claim);
                assert!(known, "nobody else waits for {claim}");
                self.warned.insert(claim);
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn histories(image: (&str, &str)) {
    let server = Server::start(image, &[]).await;
    for seed in 0..12 {
        let namespace = format!("seed-{seed}");
        let backend = server
            .connect(&format!("?namespace={namespace}"))
            .await
            .unwrap();
        let mut history = History::new(&backend, server.raw().await, &namespace, seed).await;
        eprintln!("seed {seed}");
        for _ in 0..250 {
            history.step().await;
        }
        history.check_pushes().await;
        for client in &history.clients {
            client.session().close().await.unwrap();
        }
        nothing_is_left(&mut history.raw, &history.tag).await;
    }
}

/// CANCEL: the sessions that are over leave nothing behind but their tombstones and the order.
async fn nothing_is_left(raw: &mut Raw, tag: &str) {
    let keys: Vec<String> = raw.run(&["KEYS", &format!("dlock:{{{tag}}}:*")]).await;
    let mut left: Vec<&str> = keys
        .iter()
        .filter_map(|key| key.rsplit_once(':')?.1.into())
        .collect();
    left.sort_unstable();
    assert_eq!(left, ["last", "leases"], "{keys:?}");
    let leases = format!("dlock:{{{tag}}}:leases");
    let living: i64 = raw.run(&["ZCOUNT", &leases, "0", "+inf"]).await;
    assert_eq!(living, 0);
}

#[tokio::test]
async fn redis_8() {
    histories(IMAGES[0]).await;
}

#[tokio::test]
async fn redis_7() {
    histories(IMAGES[1]).await;
}

#[tokio::test]
async fn valkey_9() {
    histories(IMAGES[2]).await;
}
