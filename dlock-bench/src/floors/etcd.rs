//! etcd: a transaction that puts a key under the client's lease if there is none, and a delete.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, Compare, CompareOp, ConnectOptions, KvClient, PutOptions, Txn, TxnOp};
use tokio::task::JoinHandle;

use super::{Once, TryLocker};
use crate::contestants::{Contestant, FLOOR, Held, Role, TTL};
use crate::fault::{Context, Verdict};
use crate::store::Place;

pub(crate) const CONTESTANT: Contestant = Contestant::new(FLOOR, Role::Floor, |place| {
    Box::pin(async move { Ok(Arc::new(Once(Create(Leased::connect(&place).await?))) as _) })
});

/// A connection with a lease that is kept.
pub(crate) struct Leased {
    pub(crate) client: Client,
    pub(crate) lease: i64,
    keeper: JoinHandle<Verdict>,
}

impl Leased {
    pub(crate) async fn connect(place: &Place) -> Verdict<Self> {
        let mut client = connect(place).await?;
        let granted = client.lease_grant(TTL.as_secs() as i64, None).await?;
        let lease = granted.id();
        let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
        let keeper = tokio::spawn(async move {
            loop {
                tokio::time::sleep(TTL / 3).await;
                keeper.keep_alive().await?;
                answers.message().await?;
            }
        });
        Ok(Self {
            client,
            lease,
            keeper,
        })
    }

    /// Deletes all of its keys.
    pub(crate) async fn end(&self) {
        self.keeper.abort();
        let mut client = self.client.lease_client();
        // What it does not confirm in time ends with the TTL.
        let _ = tokio::time::timeout(Duration::from_secs(5), client.revoke(self.lease)).await;
    }

    /// Puts the key, if there is none.
    pub(crate) fn create(&self, name: &str) -> Txn {
        let is_new = Compare::create_revision(name, CompareOp::Equal, 0);
        let options = PutOptions::new().with_lease(self.lease);
        Txn::new()
            .when([is_new])
            .and_then([TxnOp::put(name, "", Some(options))])
    }
}

/// A connection to etcd.
pub(crate) async fn connect(place: &Place) -> Verdict<Client> {
    let login = place.login.clone();
    let options = login.map(|(user, password)| ConnectOptions::new().with_user(user, password));
    let connected = Client::connect([format!("http://{}", place.address)], options).await;
    connected.doing(format!("connecting to {}", place.address))
}

/// Creates a key, or fails.
pub(crate) struct Create(pub(crate) Leased);

struct Key {
    client: KvClient,
    name: String,
}

#[async_trait]
impl TryLocker for Create {
    async fn try_lock(&self, name: &str) -> Verdict<Option<Box<dyn Held>>> {
        let mut client = self.0.client.kv_client();
        let created = client.txn(self.0.create(name)).await?;
        let name = name.to_owned();
        Ok(created
            .succeeded()
            .then(|| Box::new(Key { client, name }) as _))
    }

    async fn close(&self) {
        self.0.end().await;
    }
}

#[async_trait]
impl Held for Key {
    async fn release(mut self: Box<Self>) -> Verdict {
        self.client.delete(self.name, None).await?;
        Ok(())
    }
}
