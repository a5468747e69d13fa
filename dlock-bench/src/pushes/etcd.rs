//! etcd: a delete, and the event of a watch that was there before.

use async_trait::async_trait;
use etcd_client::{EventType, KvClient};

use super::{Ear, Push, ear};
use crate::fault::{Context, Fault, Verdict};
use crate::floors::etcd;
use crate::store::Place;

struct Deleted {
    client: KvClient,
    name: String,
    ear: Ear,
}

pub(super) async fn connect(place: &Place, name: &str) -> Verdict<Box<dyn Push>> {
    let mut watcher = etcd::connect(place).await?;
    let mut events = watcher.watch(name, None).await?;
    let confirmed = events.message().await.doing("setting up a watch")?;
    if !confirmed.is_some_and(|answer| answer.created()) {
        return Err(Fault::new("the watch was not confirmed"));
    }
    let (drum, ear) = ear();
    tokio::spawn(async move {
        let _connection = watcher;
        while let Ok(Some(answer)) = events.message().await {
            let mut all = answer.events().iter();
            let deleted = all.any(|event| event.event_type() == EventType::Delete);
            if deleted && !drum.beat() {
                break;
            }
        }
    });
    Ok(Box::new(Deleted {
        client: etcd::connect(place).await?.kv_client(),
        name: name.to_owned(),
        ear,
    }))
}

#[async_trait]
impl Push for Deleted {
    /// There must be something to delete.
    async fn prepare(&mut self) -> Verdict {
        self.client.put(self.name.as_str(), "", None).await?;
        Ok(())
    }

    async fn write(&mut self) -> Verdict {
        self.client.delete(self.name.as_str(), None).await?;
        Ok(())
    }

    fn heard(&mut self) -> &mut Ear {
        &mut self.ear
    }
}
