//! [`Redis`]: the backend, and what its sessions share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use dlock_core::{
    Backend, Capabilities, ClaimId, ClaimSnapshot, Error, FencingToken, LockName, LockSnapshot,
    Mailbox, Mode, Opened, Owner, Reach, SessionTerms, StoreError,
};
use futures_util::future::{join_all, try_join_all};
use redis::Value;

use crate::confirm::Confirm;
use crate::connect;
use crate::keys::{Layout, Partition};
use crate::link::{Call, Lane, Link};
use crate::options::RedisOptions;
use crate::scripts::{Script, Scripts};
use crate::session::RedisSession;

/// One namespace of a Redis or Valkey, standalone or cluster.
///
/// ```no_run
/// # async fn example() -> Result<(), dlock_core::Error> {
/// use dlock_redis::{Redis, RedisOptions};
///
/// let redis = Redis::connect(RedisOptions::new("localhost", 6379)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Redis(Arc<Store>);

/// What the sessions of one connection share.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) link: Arc<Link>,
    pub(crate) layout: Layout,
    pub(crate) scripts: Scripts,
    pub(crate) confirm: Confirm,
}

impl Redis {
    /// Connects, and checks that locks are safe on this server.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for settings, of the options or of the server, that cannot be;
    /// [`Error::Store`] when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping it closes what it had opened.
    pub async fn connect(options: RedisOptions) -> Result<Redis, Error> {
        let (link, layout) = connect::connect(&options).await?;
        Ok(Redis(Arc::new(Store {
            link: Arc::new(link),
            layout,
            scripts: Scripts::new(),
            confirm: options.confirm,
        })))
    }
}

#[async_trait]
impl Backend for Redis {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        let durability = self.0.confirm.in_words();
        Capabilities {
            modes: &Mode::ALL,
            min_ttl: Duration::from_millis(100),
            slack: Duration::from_millis(500),
            reach: Reach::Network,
            durability,
        }
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let session = RedisSession::open(&self.0, terms, mailbox).await?;
        Ok(Opened {
            ttl: session.ttl(),
            session: Arc::new(session),
        })
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        let partition = self.0.layout.of(name);
        let keys = self.0.layout.lock(name);
        let script = &self.0.scripts.inspect;
        let found = texts(self.0.run(partition, script, keys, vec![]).await?)?;
        let mut claims = Vec::with_capacity(found.len() / 2);
        for pair in found.chunks_exact(2) {
            claims.push(snapshot(&pair[0], &pair[1]).ok_or_else(|| strange(&pair[1]))?);
        }
        claims.sort_by_key(|(ticket, _)| *ticket);
        let (holders, waiters) = claims
            .into_iter()
            .map(|(_, claim)| claim)
            .partition(|claim| claim.token.is_some());
        Ok(LockSnapshot {
            name: name.clone(),
            holders,
            waiters,
        })
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        let pages = self
            .0
            .layout
            .partitions()
            .map(|partition| self.0.names(partition));
        let found: BTreeSet<LockName> = try_join_all(pages).await?.into_iter().flatten().collect();
        Ok(found.into_iter().collect())
    }
}

impl Store {
    /// Calls a script on a partition's node and returns its reply.
    pub(crate) async fn run(
        &self,
        partition: Partition,
        script: &Script,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<Value, StoreError> {
        let call = Call {
            slot: self.layout.slot(partition),
            lane: Lane::Prompt,
            script,
            keys,
            args,
            then: None,
        };
        Ok(self.link.call(&call).await?.0)
    }

    async fn names(&self, partition: Partition) -> Result<Vec<LockName>, StoreError> {
        let mut names = Vec::new();
        let mut from = "-".to_owned();
        while !from.is_empty() {
            let keys = vec![self.layout.leases(partition), self.layout.claims(partition)];
            let script = &self.scripts.names;
            let mut page = texts(self.run(partition, script, keys, vec![from]).await?)?.into_iter();
            from = page.next().unwrap_or_default();
            for name in page {
                names.push(LockName::new(&name).map_err(|_| strange(&name))?);
            }
        }
        Ok(names)
    }

    /// Frees what lapsed sessions left in a partition (LIVE-A): up to a bounded number of locks,
    /// each by a call of its own, because a script declares the keys that it touches.
    pub(crate) async fn sweep(&self, partition: Partition) -> Result<(), StoreError> {
        const AT_MOST: usize = 64;
        let keys = vec![self.layout.leases(partition), self.layout.claims(partition)];
        let args = vec![AT_MOST.to_string()];
        let names = texts(
            self.run(partition, &self.scripts.leftovers, keys, args)
                .await?,
        )?;
        let reaped = names.iter().map(|name| self.reap(partition, name));
        join_all(reaped).await.into_iter().collect()
    }

    /// Frees what lapsed sessions left of one lock.
    pub(crate) async fn reap(&self, partition: Partition, name: &str) -> Result<(), StoreError> {
        let name = LockName::new(name).map_err(|_| strange(name))?;
        let keys = self.layout.lock(&name);
        self.run(partition, &self.scripts.reap, keys, vec![])
            .await?;
        Ok(())
    }
}

/// A reply that is a list of texts.
pub(crate) fn texts(reply: Value) -> Result<Vec<String>, StoreError> {
    let Value::Array(items) = reply else {
        return Err(strange(&format!("{reply:?}")));
    };
    let text = |item| match item {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map_err(|fault| strange(&fault.to_string()))
        }
        other => Err(strange(&format!("{other:?}"))),
    };
    items.into_iter().map(text).collect()
}

/// Something that no version of the scripts writes.
pub(crate) fn strange(what: &str) -> StoreError {
    let shown: String = what.chars().take(80).collect();
    StoreError::refused(format!(
        "the namespace holds something that dlock did not write: {shown:?}; choose another one"
    ))
}

/// Reads `mode ticket order since owner`; returns the ticket too.
fn snapshot(id: &str, record: &str) -> Option<(u64, ClaimSnapshot)> {
    let mut words = record.splitn(5, ' ');
    let mode = Mode::from_index(words.next()?.parse().ok()?)?;
    let ticket = words.next()?.parse().ok()?;
    let order: u64 = words.next()?.parse().ok()?;
    let since = Duration::from_millis(words.next()?.parse().ok()?);
    let owner: Owner = serde_json::from_str(words.next()?).ok()?;
    let token = (1..1 << 53)
        .contains(&order)
        .then(|| FencingToken::from_order(order));
    let claim = ClaimSnapshot {
        id: id.parse::<ClaimId>().ok()?,
        mode,
        owner,
        since: SystemTime::UNIX_EPOCH + since,
        token,
        kept: false,
    };
    Some((ticket, claim))
}
