//! Everybody who is measured: dlock, the least that the store needs, and other locks.

use async_trait::async_trait;
use dlock::{Client, Guard};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::Verdict;
use crate::store::{Place, Store};
use crate::{floors, peers};

/// How long a lock of anybody is kept without a renewal.
pub(crate) const TTL: Duration = Duration::from_secs(10);

/// The name of the least that a store needs for a lock, in the results.
pub(crate) const FLOOR: &str = "floor";
/// The name of dlock, in the results.
pub(crate) const DLOCK: &str = "dlock";
/// The same for who drops its guards, and does not wait until they are released.
pub(crate) const DROPPED: &str = "dlock, dropped";

/// A client: it has its own connection, and can be shared by tasks.
#[async_trait]
pub(crate) trait Locker: Send + Sync {
    /// Waits until it has the lock. Dropped while it waits, it may leave behind what ends with
    /// [`close`](Self::close) or with the TTL: no name is used twice.
    async fn lock(&self, name: &str) -> Verdict<Box<dyn Held>>;

    /// How many wait for the lock, if it can tell.
    async fn waiting(&self, _name: &str) -> Option<usize> {
        None
    }

    /// Gives up all that is held or waited for.
    async fn close(&self) {}
}

/// A lock that is held.
#[async_trait]
pub(crate) trait Held: Send {
    /// Comes back when the store has confirmed it, but for [`DROPPED`].
    async fn release(self: Box<Self>) -> Verdict;
}

/// Which part somebody plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// dlock itself.
    Subject,
    /// The operations that no lock on this store can do without. It does not wait: it is for one client.
    Floor,
    /// dlock used in another way, where many want one lock.
    Variant,
    /// Another lock, as its users would use it.
    Peer,
}

/// Somebody who is measured.
#[derive(Clone, Copy)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// Whether it sends Redis commands outside of scripts (see [`crate::counters`]).
    pub(crate) sends_commands: bool,
    /// How long it may take until it looks again; zero if it need not look.
    pub(crate) looks_after: Duration,
    /// Why tasks that share a client do not exclude each other, if so.
    pub(crate) not_for_tasks: Option<&'static str>,
    pub(crate) how: How,
}

type Connect = fn(Place) -> BoxFuture<'static, Verdict<Arc<dyn Locker>>>;

/// How a contestant is reached.
#[derive(Clone, Copy)]
pub(crate) enum How {
    /// In this process, or in one of the bench's own.
    Here(Connect),
    /// A program in Python, which is a process of its own.
    Python,
}

impl Contestant {
    pub(crate) const fn new(name: &'static str, role: Role, connect: Connect) -> Self {
        Self {
            name,
            role,
            sends_commands: !matches!(role, Role::Subject | Role::Variant),
            looks_after: Duration::ZERO,
            not_for_tasks: None,
            how: How::Here(connect),
        }
    }

    /// It looks for the lock again and again.
    pub(crate) const fn looks_after(mut self, pause: Duration) -> Self {
        self.looks_after = pause;
        self
    }

    /// Tasks that share a client do not exclude each other.
    pub(crate) const fn not_for_tasks(mut self, why: &'static str) -> Self {
        self.not_for_tasks = Some(why);
        self
    }

    /// Another client of it.
    pub(crate) async fn client(&self, place: &Place) -> Verdict<Arc<dyn Locker>> {
        match self.how {
            How::Here(connect) => connect(place.clone()).await,
            How::Python => Err(crate::fault::Fault::new("it is a process of its own")),
        }
    }

    pub(crate) const fn is_here(&self) -> bool {
        matches!(self.how, How::Here(_))
    }
}

/// All who can be measured on this store, dlock first and its floor next.
pub(crate) fn all(store: Store) -> Vec<Contestant> {
    let mut all = vec![
        Contestant::new(DLOCK, Role::Subject, |place| {
            Box::pin(dlock_client(place, false))
        }),
        Contestant::new(DROPPED, Role::Variant, |place| {
            Box::pin(dlock_client(place, true))
        }),
    ];
    match store {
        Store::Redis | Store::Valkey => {
            all.push(floors::redis::CONTESTANT);
            all.extend(peers::redis());
        }
        Store::Etcd => {
            all.push(floors::etcd::CONTESTANT);
            all.extend(peers::etcd());
        }
        Store::Jetstream => {
            all.push(floors::jetstream::CONTESTANT);
            all.extend(peers::jetstream());
        }
        Store::Memory => all.push(floors::memory::CONTESTANT),
    }
    all
}

/// dlock as a contestant.
struct Dlock {
    client: Client,
    /// Whether it drops its guards, and does not wait until they are released: who asks for the lock again at
    /// once may do so in the operation in which it gives it back.
    drops: bool,
}

struct DlockGuard {
    guard: Guard,
    drops: bool,
}

async fn dlock_client(place: Place, drops: bool) -> Verdict<Arc<dyn Locker>> {
    let client = dlock::connect(&place.url).await?;
    Ok(Arc::new(Dlock { client, drops }))
}

#[async_trait]
impl Locker for Dlock {
    async fn lock(&self, name: &str) -> Verdict<Box<dyn Held>> {
        let guard = self.client.lock(name).await?;
        let drops = self.drops;
        Ok(Box::new(DlockGuard { guard, drops }))
    }

    async fn waiting(&self, name: &str) -> Option<usize> {
        Some(self.client.inspect(name).await.ok()?.waiters.len())
    }

    async fn close(&self) {
        // What it does not confirm in time ends with the TTL.
        let _ = self.client.close(Duration::from_secs(5)).await;
    }
}

#[async_trait]
impl Held for DlockGuard {
    async fn release(self: Box<Self>) -> Verdict {
        if !self.drops {
            self.guard.release().await?;
        }
        Ok(())
    }
}
