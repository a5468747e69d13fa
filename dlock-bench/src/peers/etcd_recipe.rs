//! The standard recipe on etcd, as in `client/v3/concurrency/mutex.go`: a key under the client's lease, then
//! wait until the key that was made last before it is deleted, by a watch from the revision of the look.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use etcd_client::{
    EventType, GetOptions, KvClient, SortOrder, SortTarget, TxnOp, TxnOpResponse, WatchClient,
    WatchOptions,
};

use crate::contestants::{Held, Locker};
use crate::fault::{Fault, Verdict};
use crate::floors::etcd::Leased;
use crate::store::Place;

struct Recipe {
    leased: Leased,
    /// The recipe has one key a lease; here several tasks may share a client.
    number: AtomicU64,
}

struct Key {
    client: KvClient,
    key: String,
}

pub(super) async fn connect(place: Place) -> super::Client {
    Ok(Arc::new(Recipe {
        leased: Leased::connect(&place).await?,
        number: AtomicU64::new(0),
    }))
}

#[async_trait]
impl Locker for Recipe {
    async fn lock(&self, name: &str) -> Verdict<Box<dyn Held>> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let key = format!("{name}/{:x}-{number}", self.leased.lease);
        let prefix = format!("{name}/");
        let mut client = self.leased.client.kv_client();
        let first = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Ascend)
            .with_limit(1);
        let first = TxnOp::get(prefix.as_str(), Some(first));
        let put = etcd_client::PutOptions::new().with_lease(self.leased.lease);
        let txn =
            etcd_client::Txn::new().and_then([TxnOp::put(key.as_str(), "", Some(put)), first]);
        let done = client.txn(txn).await?;
        let revision = |header: Option<&etcd_client::ResponseHeader>| {
            let missing = || Fault::new("etcd's answer has no header");
            header
                .map(etcd_client::ResponseHeader::revision)
                .ok_or_else(missing)
        };
        let mine = revision(done.header())?;
        let owner = done
            .op_responses()
            .into_iter()
            .find_map(|answer| match answer {
                TxnOpResponse::Get(got) => Some(got.kvs().first()?.key() == key.as_bytes()),
                _ => None,
            });
        if owner != Some(true) {
            wait_for_predecessors(
                &mut client,
                self.leased.client.watch_client(),
                &prefix,
                mine - 1,
            )
            .await?;
            // Whether the session has expired meanwhile.
            if client.get(key.as_str(), None).await?.count() == 0 {
                return Err(Fault::new("the lease has expired"));
            }
        }
        Ok(Box::new(Key { client, key }))
    }

    async fn close(&self) {
        self.leased.end().await;
    }
}

async fn wait_for_predecessors(
    client: &mut KvClient,
    watch: WatchClient,
    prefix: &str,
    until: i64,
) -> Verdict {
    loop {
        let last = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_max_create_revision(until)
            .with_limit(1);
        let found = client.get(prefix, Some(last)).await?;
        let Some(predecessor) = found.kvs().first() else {
            return Ok(());
        };
        let from = found
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        deleted(watch.clone(), predecessor.key().to_vec(), from).await?;
    }
}

async fn deleted(mut watch: WatchClient, key: Vec<u8>, from: i64) -> Verdict {
    let options = WatchOptions::new().with_start_revision(from);
    let mut events = watch.watch(key, Some(options)).await?;
    while let Some(answer) = events.message().await? {
        let mut all = answer.events().iter();
        if all.any(|event| event.event_type() == EventType::Delete) {
            return Ok(());
        }
    }
    Err(Fault::new("the watch has ended"))
}

#[async_trait]
impl Held for Key {
    async fn release(mut self: Box<Self>) -> Verdict {
        self.client.delete(self.key, None).await?;
        Ok(())
    }
}
