//! [`Etcd`]: the backend, and what its sessions share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dlock_core::{
    Backend, Capabilities, ClaimId, ClaimSnapshot, Error, FencingToken, LockName, LockSnapshot,
    Mailbox, Mode, Opened, Reach, SessionTerms, StoreError,
};
use etcd_client::{GetOptions, KeyValue, SortOrder, SortTarget, Txn, TxnOp};

use crate::base;
use crate::claims::base_as_of;
use crate::connect::{self, gets, only};
use crate::keys::Layout;
use crate::link::Link;
use crate::options::EtcdOptions;
use crate::record::{Record, strange};
use crate::session::EtcdSession;

/// How many keys one answer lists.
const PAGE: i64 = 1000;

/// One namespace of an etcd cluster.
///
/// ```no_run
/// # async fn example() -> Result<(), dlock_core::Error> {
/// use dlock_etcd::{Etcd, EtcdOptions};
///
/// let etcd = Etcd::connect(EtcdOptions::new("localhost", 2379)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Etcd(Arc<Store>);

/// What the sessions of one connection share.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) link: Arc<Link>,
    pub(crate) layout: Layout,
}

impl Etcd {
    /// Connects, and checks that locks are safe on this cluster.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for settings, or a version of the server, that cannot be; [`Error::Store`] when
    /// no member can be reached or the server refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping it closes what it had opened.
    pub async fn connect(options: EtcdOptions) -> Result<Etcd, Error> {
        let (link, layout) = connect::connect(&options).await?;
        let link = Arc::new(link);
        Ok(Etcd(Arc::new(Store { link, layout })))
    }
}

#[async_trait]
impl Backend for Etcd {
    fn kind(&self) -> &'static str {
        "etcd"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            modes: &Mode::ALL,
            // One and a half of the server's default election time-out, in whole seconds.
            min_ttl: Duration::from_secs(2),
            slack: Duration::from_secs(1),
            reach: Reach::Network,
            durability: "committed by Raft: on the disks of most members".into(),
        }
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let session = EtcdSession::open(&self.0, terms, mailbox).await?;
        Ok(Opened {
            ttl: session.ttl(),
            session: Arc::new(session),
        })
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        let in_order = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Ascend);
        let layout = &self.0.layout;
        let read = Txn::new().and_then([
            TxnOp::get(layout.lock(name), Some(in_order)),
            TxnOp::get(layout.base(), None),
        ]);
        let answers = gets(&self.0.link.txn(read).await?.op_responses());
        let mut snapshot = LockSnapshot::free(name.clone());
        let base = answers.get(1).and_then(only);
        let mut ahead: BTreeSet<Mode> = BTreeSet::new();
        for key in answers.first().map(|range| range.kvs()).unwrap_or_default() {
            let (_, mode, slot) = layout.read(key.key()).ok_or_else(|| strange(key.key()))?;
            let record = Record::read(key.value()).ok_or_else(|| strange(key.key()))?;
            let number = record.claim.ok_or_else(|| strange(key.key()))?;
            let granted = ahead.iter().all(|other| other.compatible(mode));
            ahead.insert(mode);
            let mut claim = ClaimSnapshot {
                id: ClaimId {
                    session: slot.session,
                    number,
                },
                mode,
                since: record.since(),
                token: None,
                kept: false,
                owner: record.owner,
            };
            if granted {
                claim.token = self.0.token(key, record.base, base.as_ref()).await?;
                snapshot.holders.push(claim);
            } else {
                snapshot.waiters.push(claim);
            }
        }
        Ok(snapshot)
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        let mut names = BTreeSet::new();
        let all = self.0.layout.locks().into_bytes();
        let (mut from, end) = (all.clone(), next(all));
        loop {
            let (key, end) = (from.clone(), end.clone());
            let page = self.0.link.call(|wire| {
                let mut kv = wire.kv.clone();
                let options = GetOptions::new().with_range(end).with_keys_only();
                async move { kv.get(key, Some(options.with_limit(PAGE))).await }
            });
            let page = page.await?;
            for key in page.kvs() {
                let (name, ..) =
                    (self.0.layout.read(key.key())).ok_or_else(|| strange(key.key()))?;
                names.insert(name);
            }
            match page.kvs().last().filter(|_| page.more()) {
                // The key right behind the last one.
                Some(last) => from = [last.key(), b"\0"].concat(),
                None => return Ok(names.into_iter().collect()),
            }
        }
    }
}

impl Store {
    /// The token of a granted claim; `None` where the server has compacted away what it was made from.
    async fn token(
        &self,
        key: &KeyValue,
        own: Option<u64>,
        current: Option<&KeyValue>,
    ) -> Result<Option<FencingToken>, StoreError> {
        let ticket = key.create_revision();
        let base = match own {
            Some(base) => Some(base),
            None => base_as_of(&self.link, &self.layout, ticket, current).await?,
        };
        Ok(base.and_then(|base| base::token(base, ticket)))
    }
}

/// The end of the range of the keys that begin with this, which ends in a slash.
fn next(mut prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}
