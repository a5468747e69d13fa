//! A session: one lease in each partition in which it asked for a lock, all renewed together.
//!
//! The lease in the session's home partition is made when it is opened. In any other partition the
//! first request makes it, in the same step that tests it. So that a late copy of such a request
//! cannot bring a session back to life, it says until when it counts: as long as the home lease was
//! known to stand when it was sent, with an allowance for the clocks of a cluster's nodes. Once a
//! lease is known to have been made, a request that finds none fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dlock_core::mutants::{Mutant, is_on};
use dlock_core::{
    Attempts, Claim, FencingToken, Mailbox, Outcome, Owner, Session, SessionId, SessionTerms,
    StoreError, Wait,
};
use futures_util::future::join_all;
use redis::Value;

use crate::backend::{Store, strange, texts};
use crate::confirm::Confirm;
use crate::connect::confirm_layout;
use crate::keys::Partition;
use crate::link::{Call, Lane};
use crate::pushes::{Grants, forward};
use crate::scripts::{ORDER_STEP, Script};
use crate::transport::Task;

/// How far the clocks of a cluster's nodes may differ for a first request in a partition to count.
/// Far less than the time for which the scripts remember a dead session.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// How long freeing what others left may take in the background.
const SWEEP: Duration = Duration::from_secs(10);

/// What the session knows of its lease in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    /// A request was sent; it may have made the lease.
    Asked,
    /// It was made.
    Made,
}

/// A session on Redis.
#[derive(Debug)]
pub(crate) struct RedisSession {
    store: Arc<Store>,
    id: SessionId,
    owner: Owner,
    /// The same as the scripts are given it.
    owner_in_json: String,
    /// Milliseconds.
    ttl: u64,
    leases: Mutex<BTreeMap<Partition, Lease>>,
    home: Partition,
    /// When the home lease runs out as far as this client knows, in milliseconds of the server's clock.
    home_lapses: AtomicU64,
    sweeper: Mutex<Option<Task>>,
    _pushes: Task,
}

impl RedisSession {
    pub(crate) async fn open(
        store: &Arc<Store>,
        terms: &SessionTerms,
        mailbox: Mailbox,
    ) -> Result<Self, StoreError> {
        store.confirm.fits(terms.attempt_limit())?;
        confirm_layout(&store.link, &store.layout).await?;
        let channel = store.layout.channel(terms.id);
        // First of all, so that no push is missed.
        let subscription = store.link.subscribe(&channel).await?;
        let grants = match store.confirm {
            Confirm::Reply => Grants::Proof,
            _ if is_on(Mutant::UnconfirmedPush) => Grants::Proof,
            Confirm::Replicas { .. } | Confirm::Disk { .. } => Grants::Hint,
        };
        let link = Arc::clone(&store.link);
        let pushes = Task::spawn(forward(link, channel, subscription, grants, mailbox));
        let home = store.layout.home_of(terms.id);
        let session = Self {
            store: Arc::clone(store),
            id: terms.id,
            owner: terms.owner.clone(),
            owner_in_json: in_json(&terms.owner)?,
            ttl: u64::try_from(terms.ttl.as_millis()).unwrap_or(u64::MAX),
            leases: Mutex::new(BTreeMap::from([(home, Lease::Made)])),
            home,
            home_lapses: AtomicU64::new(0),
            sweeper: Mutex::default(),
            _pushes: pushes,
        };
        session.renew_in(home, "make").await?;
        session.sweep(store.layout.partitions().collect());
        Ok(session)
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl)
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, BTreeMap<Partition, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the lease in one partition, and says whether lapsed sessions left something there.
    /// `where_absent` says what it means that there is none.
    async fn renew_in(&self, partition: Partition, where_absent: &str) -> Result<bool, StoreError> {
        let keys = vec![self.store.layout.leases(partition)];
        let args = vec![
            self.id.to_string(),
            self.ttl.to_string(),
            where_absent.to_owned(),
        ];
        let script = &self.store.scripts.renew;
        let reply = self.store.run(partition, script, keys, args).await?;
        let (lapses, leftovers) = match &reply {
            Value::Array(items) => match items[..] {
                [Value::Int(lapses), Value::Int(leftovers)] => (lapses, leftovers),
                _ => return Err(strange(&format!("{reply:?}"))),
            },
            _ => return Err(strange(&format!("{reply:?}"))),
        };
        match u64::try_from(lapses) {
            Err(_) => return Err(StoreError::lapsed()),
            Ok(0) => {}
            Ok(lapses) => {
                self.leases().insert(partition, Lease::Made);
                if partition == self.home {
                    self.home_lapses.store(lapses, Ordering::Relaxed);
                }
            }
        }
        Ok(leftovers > 0)
    }

    /// Frees in the background what lapsed sessions left: nobody waits for it, least of all the
    /// heartbeat.
    fn sweep(&self, partitions: Vec<Partition>) {
        let mut sweeper = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner);
        if partitions.is_empty() || sweeper.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let store = Arc::clone(&self.store);
        *sweeper = Some(Task::spawn(async move {
            let work = join_all(partitions.into_iter().map(|which| store.sweep(which)));
            match tokio::time::timeout(SWEEP, work).await {
                Ok(results) => {
                    for fault in results.into_iter().filter_map(Result::err) {
                        tracing::debug!(%fault, "could not free what lapsed sessions left");
                    }
                }
                Err(_) => tracing::debug!("freeing what lapsed sessions left took too long"),
            }
        }));
    }

    /// Calls a script about one claim. The partition is renewed from now on.
    async fn ask(
        &self,
        script: &Script,
        claim: &Claim,
        confirm: Confirm,
        more: Vec<String>,
    ) -> Result<(Value, Option<Value>), StoreError> {
        let layout = &self.store.layout;
        let partition = layout.of(&claim.name);
        let lease = *self.leases().entry(partition).or_insert(Lease::Asked);
        let (may_make_lease_until, ttl) = match lease {
            Lease::Made => ("0".to_owned(), String::new()),
            Lease::Asked => {
                let lapses = self.home_lapses.load(Ordering::Relaxed);
                let until = lapses + CLOCKS_DIFFER.as_millis() as u64;
                (until.to_string(), self.ttl.to_string())
            }
        };
        let then = confirm.command();
        let is_confirmed = if then.is_some() { "confirm" } else { "" };
        let mut args = vec![
            claim.id.to_string(),
            is_confirmed.to_owned(),
            may_make_lease_until,
            ttl,
        ];
        args.extend(more);
        let call = Call {
            slot: layout.slot(partition),
            lane: match then {
                Some(_) => Lane::Confirming,
                None => Lane::Prompt,
            },
            script,
            keys: layout.lock(&claim.name),
            args,
            then,
        };
        self.store.link.call(&call).await
    }

    /// What the scripts are told of a claim that asks.
    fn newcomer(&self, claim: &Claim, wait: Wait) -> Result<Vec<String>, StoreError> {
        // Only a request with a label of its own has another one.
        let owner = match claim.owner == self.owner {
            true => self.owner_in_json.clone(),
            false => in_json(&claim.owner)?,
        };
        let wait = match wait {
            Wait::InTurn => "wait",
            Wait::Never => "never",
        };
        Ok(vec![wait.to_owned(), claim.mode.index().to_string(), owner])
    }

    /// The state of a claim as a script tells it, once it is as durable as was asked for.
    fn outcome(
        &self,
        claim: &Claim,
        reply: &Value,
        confirmed: Option<Value>,
    ) -> Result<Outcome, StoreError> {
        let unknown = || strange(&format!("{reply:?}"));
        let Value::Array(items) = reply else {
            return Err(unknown());
        };
        let (Some(Value::BulkString(state)), number) = (items.first(), items.get(1)) else {
            return Err(unknown());
        };
        let number = match number {
            Some(Value::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let outcome = match (&state[..], number) {
            (b"lapsed", _) => return Err(StoreError::lapsed()),
            (b"absent", _) => return Ok(Outcome::Absent),
            (b"waiting", Some(millis)) => Outcome::Waiting {
                look_after: Some(Duration::from_millis(millis)),
            },
            (b"granted", Some(order)) if order < 1 << 53 => Outcome::Granted {
                token: FencingToken::from_order(order),
            },
            _ => return Err(unknown()),
        };
        let partition = self.store.layout.of(&claim.name);
        self.leases().insert(partition, Lease::Made);
        if let Outcome::Granted { .. } = outcome {
            self.store.confirm.check(confirmed)?;
        }
        Ok(outcome)
    }

    /// Frees the session's claims in one partition.
    async fn close_in(&self, partition: Partition) -> Result<(), StoreError> {
        let layout = &self.store.layout;
        let (leases, claims) = (layout.leases(partition), layout.claims(partition));
        let script = &self.store.scripts.close;
        let args = vec![self.id.to_string()];
        let left = self
            .store
            .run(partition, script, vec![leases, claims.clone()], args)
            .await?;
        if left == Value::Int(0) {
            return Ok(());
        }
        let mut list = redis::cmd("ZRANGE");
        list.arg(&claims)
            .arg(format!("[{}", self.id))
            .arg(format!("({}~", self.id))
            .arg(&["BYLEX", "LIMIT", "0", "200"]);
        loop {
            let listed = self
                .store
                .link
                .command(layout.slot(partition), &list)
                .await?;
            // <session>, a space, <name>, a NUL, and more.
            let names: BTreeSet<String> = texts(listed)?
                .iter()
                .filter_map(|member| member.get(33..)?.split('\0').next().map(str::to_owned))
                .collect();
            if names.is_empty() {
                return Ok(());
            }
            // Each takes out all that this session has there, so the list grows shorter.
            let freed = names.iter().map(|name| self.store.reap(partition, name));
            join_all(freed)
                .await
                .into_iter()
                .collect::<Result<(), _>>()?;
        }
    }
}

fn in_json(owner: &Owner) -> Result<String, StoreError> {
    serde_json::to_string(owner)
        .map_err(|fault| StoreError::refused("the owner cannot be written").because(fault))
}

#[async_trait]
impl Session for RedisSession {
    async fn renew(&self) -> Result<Duration, StoreError> {
        let leases: Vec<(Partition, Lease)> = self
            .leases()
            .iter()
            .map(|(which, lease)| (*which, *lease))
            .collect();
        let renewals = leases.iter().map(|(partition, lease)| {
            let where_absent = match lease {
                Lease::Asked => "none",
                Lease::Made => "over",
            };
            self.renew_in(*partition, where_absent)
        });
        let mut swept = Vec::new();
        let mut failed = None;
        for ((partition, _), renewed) in leases.iter().zip(join_all(renewals).await) {
            match renewed {
                Ok(true) => swept.push(*partition),
                Ok(false) => {}
                // That it is over is certain, and counts more than a failure.
                Err(fault) if fault.kind() == dlock_core::StoreErrorKind::Lapsed => {
                    return Err(fault);
                }
                Err(fault) => failed = Some(fault),
            }
        }
        self.sweep(swept);
        match failed {
            Some(fault) => Err(fault),
            None => Ok(self.ttl()),
        }
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        let more = self.newcomer(claim, wait)?;
        let script = &self.store.scripts.request;
        let (reply, confirmed) = self.ask(script, claim, self.store.confirm, more).await?;
        self.outcome(claim, &reply, confirmed)
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        let script = &self.store.scripts.status;
        let (reply, confirmed) = self.ask(script, claim, self.store.confirm, vec![]).await?;
        self.outcome(claim, &reply, confirmed)
    }

    fn pushes_contended(&self) -> bool {
        true
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        let attempts = match attempts {
            Attempts::Answered => "answered",
            Attempts::Unanswered => "unanswered",
        };
        let script = &self.store.scripts.withdraw;
        let more = vec![attempts.to_owned()];
        self.ask(script, claim, Confirm::Reply, more).await?;
        Ok(())
    }

    /// Not where a grant has to be confirmed: a release would wait for that.
    fn replaces(&self) -> bool {
        matches!(self.store.confirm, Confirm::Reply)
    }

    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        let mut more = self.newcomer(claim, Wait::InTurn)?;
        more.push(leaving.id.to_string());
        let script = &self.store.scripts.replace;
        let (reply, confirmed) = self.ask(script, claim, self.store.confirm, more).await?;
        self.outcome(claim, &reply, confirmed)
    }

    fn order_step(&self) -> u64 {
        ORDER_STEP
    }

    async fn close(&self) -> Result<(), StoreError> {
        let partitions: Vec<Partition> = self.leases().keys().copied().collect();
        let closed = partitions.into_iter().map(|which| self.close_in(which));
        join_all(closed).await.into_iter().collect()
    }
}
