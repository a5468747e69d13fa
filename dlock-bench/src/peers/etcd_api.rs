//! The lock that etcd's server offers (`v3lock`), with the client's own lease.

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{LockClient, LockOptions};

use crate::contestants::{Held, Locker};
use crate::fault::Verdict;
use crate::floors::etcd::Leased;
use crate::store::Place;

struct Api(Leased);

struct Key {
    client: LockClient,
    key: Vec<u8>,
}

pub(super) async fn connect(place: Place) -> super::Client {
    Ok(Arc::new(Api(Leased::connect(&place).await?)))
}

#[async_trait]
impl Locker for Api {
    async fn lock(&self, name: &str) -> Verdict<Box<dyn Held>> {
        let mut client = self.0.client.lock_client();
        let options = LockOptions::new().with_lease(self.0.lease);
        let locked = client.lock(name, Some(options)).await?;
        let key = locked.key().to_vec();
        Ok(Box::new(Key { client, key }))
    }

    async fn close(&self) {
        self.0.end().await;
    }
}

#[async_trait]
impl Held for Key {
    async fn release(mut self: Box<Self>) -> Verdict {
        self.client.unlock(self.key).await?;
        Ok(())
    }
}
