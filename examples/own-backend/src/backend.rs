//! The backend: what `dlock-core` asks of a store, in terms of the server's transactions.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use dlock_core::table::{Granted, LockTable, Stamp};
use dlock_core::*;
use serde::{Deserialize, Serialize};

use crate::server::Connection;

/// The value that the server keeps: every lock, and every lease.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    tables: HashMap<LockName, LockTable>,
    leases: HashMap<SessionId, Lease>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    /// On the server's clock, in microseconds.
    lapses: u64,
    /// Claims that were withdrawn, against copies of their requests that are still on their way (ONCE).
    withdrawn: HashSet<ClaimId>,
}

/// A transaction: the document, the server's time, and whom to tell what when it is committed.
struct Transaction {
    document: Document,
    now: u64,
    granted: Vec<Granted>,
}

impl Transaction {
    /// Frees what lapsed sessions have left: they count as absent, whoever asks (LIVE-A).
    fn sweep(&mut self) {
        let now = self.now;
        let lapsed = |lease: &Lease| lease.lapses <= now;
        let gone = self.document.leases.iter().filter(|(_, lease)| lapsed(lease));
        let gone: Vec<SessionId> = gone.map(|(session, _)| *session).collect();
        gone.into_iter().for_each(|session| self.end(session));
    }

    fn end(&mut self, session: SessionId) {
        self.document.leases.remove(&session);
        let stamp = self.stamp();
        for table in self.document.tables.values_mut() {
            self.granted.extend(table.expire(session, stamp));
        }
    }

    /// The lease, if it stands (ATOM-A: in the same step as what is done under it).
    fn lease(&mut self, session: SessionId) -> Result<&mut Lease, StoreError> {
        self.document.leases.get_mut(&session).ok_or_else(StoreError::lapsed)
    }

    /// The server's order, on the scale of microseconds since 1970: tokens rise, also when the data
    /// are lost (FENCE).
    fn stamp(&self) -> Stamp {
        Stamp { order: self.now, millis: self.now / 1000 }
    }

    fn outcome(&self, claim: &Claim) -> Outcome {
        let table = self.document.tables.get(&claim.name);
        let Some((table, entry)) = table.and_then(|table| Some((table, table.get(claim.id)?)))
        else {
            return Outcome::Absent;
        };
        match entry.token {
            Some(token) => Outcome::Granted { token },
            None => {
                // When the first of the leases ahead could run out, nobody would tell.
                let ahead = table.blockers(claim.id).map(|ahead| ahead.id.session);
                let leases = ahead.filter_map(|session| self.document.leases.get(&session));
                let lapses = leases.map(|lease| lease.lapses).min();
                let left = lapses.map(|at| Duration::from_micros(at.saturating_sub(self.now)));
                Outcome::Waiting { look_after: left }
            }
        }
    }
}

/// A connection to the server's address. Each transaction has one of its own: whoever gives an attempt up
/// drops it, and the next one does not wait behind it.
#[derive(Clone, Debug)]
pub struct OwnBackend {
    pub server: String,
}

impl OwnBackend {
    /// Runs this in a transaction. It must not be repeated when the answer to the commit is lost: the core
    /// decides that (ONCE).
    async fn transact<T>(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let before = |fault| StoreError::unavailable("no transaction begun").because(fault);
        let mut connection = Connection::open(&self.server).await.map_err(before)?;
        connection.send("begin").await.map_err(before)?;
        let begun = connection.next().await.map_err(before)?.unwrap_or_default();
        let (now, text) = begun.split_once(' ').unwrap_or_default();
        let document = match text {
            "" => Document::default(),
            text => serde_json::from_str(text)
                .map_err(|fault| StoreError::refused("not dlock's document").because(fault))?,
        };
        let now = now.parse().map_err(|fault| StoreError::unavailable("no time").because(fault))?;
        let mut transaction = Transaction { document, now, granted: Vec::new() };
        transaction.sweep();
        let result = work(&mut transaction)?;
        transaction.document.tables.retain(|_, table| !table.is_empty());
        let mut commit = String::from("commit ");
        commit += &serde_json::to_string(&transaction.document)
            .map_err(|fault| StoreError::refused("cannot be written").because(fault))?;
        for grant in transaction.granted {
            let (claim, token) = (grant.id, u64::from(grant.token));
            commit += &format!("\t{}\t{} {token}", claim.session, claim.number);
        }
        let after = |fault| StoreError::ambiguous("no answer to the commit").because(fault);
        connection.send(&commit).await.map_err(after)?;
        match connection.next().await.map_err(after)?.as_deref() {
            Some("ok") => Ok(result),
            Some(_) => Err(StoreError::unavailable("the transaction took too long")),
            None => Err(StoreError::ambiguous("the server has hung up")),
        }
    }
}

#[async_trait]
impl Backend for OwnBackend {
    fn kind(&self) -> &'static str {
        "own"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            modes: &Mode::ALL,
            min_ttl: Duration::from_millis(500),
            slack: Duration::from_millis(100),
            reach: Reach::Network,
            durability: "none: the server's memory".into(),
        }
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let (id, ttl) = (terms.id, terms.ttl);
        // Listening before there is anything to hear: no push falls in between.
        let fault = |fault| StoreError::unavailable("cannot listen").because(fault);
        let mut pushes = Connection::open(&self.server).await.map_err(fault)?;
        pushes.send(&format!("listen {id}")).await.map_err(fault)?;
        let listening = tokio::spawn(async move {
            while let Ok(Some(word)) = pushes.next().await {
                let mut numbers = word.split(' ').map(str::parse::<u64>);
                let (Some(Ok(number)), Some(Ok(token))) = (numbers.next(), numbers.next()) else {
                    continue;
                };
                let Ok(token) = FencingToken::try_from(token) else {
                    continue;
                };
                mailbox.granted(ClaimId { session: id, number }, token);
            }
        });
        let session = OwnSession { backend: self.clone(), id, ttl, listening };
        self.transact(|transaction| {
            let lapses = transaction.now + ttl.as_micros() as u64;
            let lease = Lease { lapses, withdrawn: HashSet::new() };
            transaction.document.leases.insert(id, lease);
            Ok(())
        })
        .await?;
        Ok(Opened { session: std::sync::Arc::new(session), ttl })
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        self.transact(|transaction| {
            let table = transaction.document.tables.get(name).cloned().unwrap_or_default();
            let shown = table.claims().map(|claim| ClaimSnapshot {
                id: claim.id,
                mode: claim.mode,
                owner: claim.owner.clone(),
                since: UNIX_EPOCH + Duration::from_millis(claim.since),
                token: claim.token,
                kept: false,
            });
            let (holders, waiters) = shown.partition(|claim| claim.token.is_some());
            Ok(LockSnapshot { name: name.clone(), holders, waiters })
        })
        .await
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        self.transact(|transaction| {
            let tables = transaction.document.tables.iter();
            let used = tables.filter(|(_, table)| !table.is_empty());
            Ok(used.map(|(name, _)| name.clone()).collect())
        })
        .await
    }
}

#[derive(Debug)]
struct OwnSession {
    backend: OwnBackend,
    id: SessionId,
    ttl: Duration,
    listening: tokio::task::JoinHandle<()>,
}

impl Drop for OwnSession {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

#[async_trait]
impl Session for OwnSession {
    async fn renew(&self) -> Result<Duration, StoreError> {
        self.backend
            .transact(|transaction| {
                let lapses = transaction.now + self.ttl.as_micros() as u64;
                transaction.lease(self.id)?.lapses = lapses;
                Ok(self.ttl)
            })
            .await
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        self.backend
            .transact(|transaction| {
                if transaction.lease(self.id)?.withdrawn.contains(&claim.id) {
                    return Ok(Outcome::Absent);
                }
                let stamp = transaction.stamp();
                let table = transaction.document.tables.entry(claim.name.clone()).or_default();
                let known = table.get(claim.id).is_some();
                if known || wait == Wait::InTurn || table.admits(claim.mode) {
                    table.request(claim.id, claim.mode, &claim.owner, stamp);
                }
                Ok(transaction.outcome(claim))
            })
            .await
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        self.backend
            .transact(|transaction| {
                transaction.lease(self.id)?;
                Ok(transaction.outcome(claim))
            })
            .await
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        self.backend
            .transact(|transaction| {
                let lease = transaction.lease(self.id)?;
                if attempts == Attempts::Unanswered {
                    lease.withdrawn.insert(claim.id);
                }
                let stamp = transaction.stamp();
                if let Some(table) = transaction.document.tables.get_mut(&claim.name) {
                    transaction.granted.extend(table.withdraw(claim.id, stamp));
                }
                Ok(())
            })
            .await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let end = |transaction: &mut Transaction| {
            transaction.end(self.id);
            Ok(())
        };
        self.backend.transact(end).await
    }
}

/// Loses everything, as a server without a disk does when it is started again.
pub async fn wipe(backend: &OwnBackend) -> Result<(), StoreError> {
    backend
        .transact(|transaction| {
            transaction.document = Document::default();
            Ok(())
        })
        .await
}
