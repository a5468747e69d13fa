//! Redis: a script that writes a key and publishes, and a subscriber.

use async_trait::async_trait;
use futures_util::StreamExt;
use redis::Script;
use redis::aio::MultiplexedConnection;

use super::{Ear, Push, ear};
use crate::fault::Verdict;
use crate::floors::redis::{client, connection};
use crate::store::Place;

const WRITE: &str = "redis.call('SET', KEYS[1], ARGV[1], 'PX', 10000) \
                     return redis.call('PUBLISH', ARGV[2], ARGV[1])";

struct Published {
    connection: MultiplexedConnection,
    script: Script,
    name: String,
    ear: Ear,
}

pub(super) async fn connect(place: &Place, name: &str) -> Verdict<Box<dyn Push>> {
    let mut subscriber = client(place)?.get_async_pubsub().await?;
    subscriber.subscribe(name).await?;
    let (drum, ear) = ear();
    tokio::spawn(async move {
        let mut messages = subscriber.into_on_message();
        while messages.next().await.is_some() && drum.beat() {}
    });
    Ok(Box::new(Published {
        connection: connection(place).await?,
        script: Script::new(WRITE),
        name: name.to_owned(),
        ear,
    }))
}

#[async_trait]
impl Push for Published {
    async fn write(&mut self) -> Verdict {
        let mut call = self.script.key(&self.name);
        let call = call.arg("x").arg(&self.name);
        let _: i64 = call.invoke_async(&mut self.connection).await?;
        Ok(())
    }

    fn heard(&mut self) -> &mut Ear {
        &mut self.ear
    }
}
