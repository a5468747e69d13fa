//! The usual lock on JetStream's key-value store: create the key, or try again later; delete it.
//!
//! Without a TTL: the client drops it when it creates a deleted key again. So nobody frees a crashed holder's
//! lock, which makes this one cheaper than it could be.

use async_nats::jetstream::kv;
use async_nats::jetstream::kv::{CreateErrorKind, Store};
use async_trait::async_trait;

use crate::contestants::Held;
use crate::fault::Verdict;
use crate::floors::TryLocker;
use crate::floors::jetstream;
use crate::store::Place;

pub(super) struct KeyValue(Store);

struct Key {
    bucket: Store,
    name: String,
}

pub(super) async fn connect(place: &Place) -> Verdict<KeyValue> {
    let client = jetstream::connect(place).await?;
    Ok(KeyValue(jetstream::bucket(&client).await?))
}

#[async_trait]
impl TryLocker for KeyValue {
    async fn try_lock(&self, name: &str) -> Verdict<Option<Box<dyn Held>>> {
        match self.0.create(name, "x".into()).await {
            Ok(_) => Ok(Some(Box::new(Key {
                bucket: self.0.clone(),
                name: name.to_owned(),
            }))),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
            Err(error) if is_collision(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Two creates met. The library says "wrong last sequence", or only "other".
fn is_collision(error: &kv::CreateError) -> bool {
    let mut cause = std::error::Error::source(error);
    let mut words = error.to_string();
    while let Some(inner) = cause {
        words.push_str(&inner.to_string());
        cause = inner.source();
    }
    words.contains("wrong last sequence")
}

#[async_trait]
impl Held for Key {
    async fn release(self: Box<Self>) -> Verdict {
        self.bucket.delete(&self.name).await?;
        Ok(())
    }
}
