//! JetStream: two acknowledged writes on one subject, each of which names the sequence of the last one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::client::Request;
use async_nats::jetstream::kv;
use async_nats::{Client, ConnectOptions, HeaderMap, jetstream};
use async_trait::async_trait;
use serde_json::Value;

use super::{Once, TryLocker};
use crate::contestants::{Contestant, FLOOR, Held, Role};
use crate::fault::{Context, Fault, Verdict};
use crate::store::Place;

pub(crate) const CONTESTANT: Contestant = Contestant::new(FLOOR, Role::Floor, |place| {
    Box::pin(async move { Ok(Arc::new(Once(CompareAndSet::connect(&place).await?)) as _) })
});

/// The bucket of the bench's own.
const BUCKET: &str = "dlock-bench";

/// A connection to NATS.
pub(crate) async fn connect(place: &Place) -> Verdict<Client> {
    let mut options = ConnectOptions::new();
    if let Some((user, password)) = place.login.clone() {
        options = options.user_and_password(user, password);
    }
    // A busy server is waited for, as dlock does.
    let options = options.request_timeout(Some(Duration::from_secs(30)));
    let connected = options.connect(format!("nats://{}", place.address)).await;
    connected.doing(format!("connecting to {}", place.address))
}

/// The bench's bucket, made when it is missing: files, and one replica.
pub(crate) async fn bucket(client: &Client) -> Verdict<kv::Store> {
    let config = kv::Config {
        bucket: BUCKET.to_owned(),
        history: 1,
        ..kv::Config::default()
    };
    let context = jetstream::new(client.clone());
    let made = context.create_key_value(config).await;
    made.doing("making the bench's bucket")
}

/// The subject of this name's key.
fn subject(name: &str) -> String {
    format!("$KV.{BUCKET}.{name}")
}

struct CompareAndSet {
    client: Client,
    /// The last sequence of each name. Nobody else writes to them.
    last: Arc<Mutex<HashMap<String, u64>>>,
}

struct Written {
    client: Client,
    last: Arc<Mutex<HashMap<String, u64>>>,
    name: String,
    sequence: u64,
}

impl CompareAndSet {
    async fn connect(place: &Place) -> Verdict<Self> {
        let client = connect(place).await?;
        bucket(&client).await?;
        Ok(Self {
            client,
            last: Arc::default(),
        })
    }
}

/// Writes if the subject's last sequence is this one; returns the new one.
pub(crate) async fn put(client: &Client, name: &str, last: u64) -> Verdict<u64> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
    let request = Request::new().headers(headers).payload("x".into());
    let reply = client.send_request(subject(name), request).await?;
    let reply: Value = serde_json::from_slice(&reply.payload)?;
    let refused = || Fault::new(format!("the write was refused: {}", reply["error"]));
    reply["seq"].as_u64().ok_or_else(refused)
}

#[async_trait]
impl TryLocker for CompareAndSet {
    async fn try_lock(&self, name: &str) -> Verdict<Option<Box<dyn Held>>> {
        let last = {
            let known = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(name).copied().unwrap_or(0)
        };
        let sequence = put(&self.client, name, last).await?;
        Ok(Some(Box::new(Written {
            client: self.client.clone(),
            last: Arc::clone(&self.last),
            name: name.to_owned(),
            sequence,
        })))
    }
}

#[async_trait]
impl Held for Written {
    async fn release(self: Box<Self>) -> Verdict {
        let last = put(&self.client, &self.name, self.sequence).await?;
        let mut known = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(self.name, last);
        Ok(())
    }
}
