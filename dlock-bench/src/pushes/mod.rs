//! Bare hand-offs: a write that tells somebody, from its call to the other one's having heard of it, over two
//! connections. No lock that confirms its releases in the store can hand over faster.

mod etcd;
pub(crate) mod jetstream;
mod memory;
mod redis;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::fault::{Context, Fault, Verdict};
use crate::machine;
use crate::store::{Place, Store};

/// The name of a bare hand-off, in the results.
pub(crate) const BARE: &str = "bare hand-off";

/// One end writes, the other end hears.
#[async_trait]
pub(crate) trait Push: Send {
    /// What a hand-off needs before it can begin, and is not measured.
    async fn prepare(&mut self) -> Verdict {
        Ok(())
    }

    /// Writes, and comes back when it is done.
    async fn write(&mut self) -> Verdict;

    /// When the other end heard of it, on the machine's clock.
    fn heard(&mut self) -> &mut Ear;
}

/// The end that hears: a task of its own sends the time of each message.
pub(crate) struct Ear(mpsc::UnboundedReceiver<u64>);

/// What the task of an [`Ear`] calls.
pub(crate) struct Drum(mpsc::UnboundedSender<u64>);

impl Drum {
    /// Something was heard just now. Whether anybody still listens.
    pub(crate) fn beat(&self) -> bool {
        self.0.send(machine::now()).is_ok()
    }
}

pub(crate) fn ear() -> (Drum, Ear) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Drum(sender), Ear(receiver))
}

/// The bare hand-off on this store.
pub(crate) async fn connect(place: &Place, name: &str) -> Verdict<Box<dyn Push>> {
    match place.store {
        Store::Redis | Store::Valkey => redis::connect(place, name).await,
        Store::Etcd => etcd::connect(place, name).await,
        Store::Jetstream => jetstream::connect(place, name).await,
        Store::Memory => Ok(memory::connect()),
    }
}

/// One hand-off after idling for so long, as a holder does; returns its nanoseconds.
pub(crate) async fn hand_off(push: &mut dyn Push, hold: Duration) -> Verdict<u64> {
    push.prepare().await?;
    if !hold.is_zero() {
        tokio::time::sleep(hold).await;
    }
    let begun = machine::now();
    push.write().await?;
    let limit = Duration::from_secs(5);
    let heard = tokio::time::timeout(limit, push.heard().0.recv()).await;
    let heard = heard.doing("the push did not arrive")?;
    let heard = heard.ok_or_else(|| Fault::new("the subscription has ended"))?;
    Ok(heard.saturating_sub(begun))
}
