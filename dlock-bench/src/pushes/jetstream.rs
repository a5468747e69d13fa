//! JetStream: an acknowledged write, then a core message, and a subscriber. And a count of dlock's pushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Client;
use async_trait::async_trait;
use futures_util::StreamExt;

use super::{Ear, Push, ear};
use crate::fault::{Fault, Verdict};
use crate::floors::jetstream::{self, put};
use crate::store::Place;

struct Written {
    client: Client,
    name: String,
    subject: String,
    last: u64,
    ear: Ear,
}

pub(super) async fn connect(place: &Place, name: &str) -> Verdict<Box<dyn Push>> {
    let client = jetstream::connect(place).await?;
    jetstream::bucket(&client).await?;
    let subject = format!("dlock-bench.{name}");
    let other = jetstream::connect(place).await?;
    let mut messages = other.subscribe(subject.clone()).await?;
    round_trip(&other).await?;
    let (drum, ear) = ear();
    tokio::spawn(async move {
        let _connection = other;
        while messages.next().await.is_some() && drum.beat() {}
    });
    Ok(Box::new(Written {
        client,
        name: name.to_owned(),
        subject,
        last: 0,
        ear,
    }))
}

#[async_trait]
impl Push for Written {
    async fn write(&mut self) -> Verdict {
        self.last = put(&self.client, &self.name, self.last).await?;
        self.client
            .publish(self.subject.clone(), "x".into())
            .await?;
        Ok(())
    }

    fn heard(&mut self) -> &mut Ear {
        &mut self.ear
    }
}

/// Comes back when the server has done all that this client asked it before, a subscription among it.
async fn round_trip(client: &Client) -> Verdict {
    let inbox = client.new_inbox();
    let mut messages = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, "".into()).await?;
    let answered = messages.next().await;
    answered
        .map(drop)
        .ok_or_else(|| Fault::new("the connection has ended"))
}

/// Counts the messages that dlock's clients send each other: the server's counters do not tell them from
/// others.
#[derive(Debug)]
pub(crate) struct PushCounter {
    client: Client,
    seen: Arc<AtomicU64>,
    /// What it has itself sent.
    own: AtomicU64,
}

impl PushCounter {
    pub(crate) async fn listen(place: &Place) -> Verdict<Self> {
        let client = jetstream::connect(place).await?;
        let mut messages = client.subscribe("dlock.>").await?;
        round_trip(&client).await?;
        let seen = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&seen);
        tokio::spawn(async move {
            while messages.next().await.is_some() {
                counted.fetch_add(1, Ordering::AcqRel);
            }
        });
        let own = AtomicU64::new(1);
        Ok(Self { client, seen, own })
    }

    /// How many there were since it listens, and how many messages it has itself sent to the server.
    pub(crate) async fn count(&self) -> Verdict<(f64, f64)> {
        // What the server had passed on before is here when it has answered.
        round_trip(&self.client).await?;
        let own = self.own.fetch_add(1, Ordering::AcqRel) + 1;
        Ok((self.seen.load(Ordering::Acquire) as f64, own as f64))
    }
}
