//! Other locks, as their users would use them.

mod etcd_api;
mod etcd_recipe;
mod jetstream_kv;
pub(crate) mod redis_py;
mod rslock;

use std::sync::Arc;
use std::time::Duration;

use crate::contestants::{Contestant, Role};
use crate::floors::Retry;
use crate::floors::etcd::{Create, Leased};
use crate::floors::redis::SetNx;

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_millis(100);

pub(crate) fn redis() -> Vec<Contestant> {
    vec![
        Contestant::new("SET NX, retry 10 ms", Role::Peer, |place| {
            Box::pin(async move { Ok(Retry::every(SHORT, SetNx::connect(&place).await?)) })
        })
        .looks_after(SHORT),
        Contestant::new("SET NX, retry 100 ms", Role::Peer, |place| {
            Box::pin(async move { Ok(Retry::every(LONG, SetNx::connect(&place).await?)) })
        })
        .looks_after(LONG),
        Contestant::new("rslock", Role::Peer, |place| {
            Box::pin(rslock::connect(place))
        })
        .looks_after(rslock::PAUSE),
        redis_py::CONTESTANT,
    ]
}

pub(crate) fn etcd() -> Vec<Contestant> {
    vec![
        Contestant::new("etcd's lock API", Role::Peer, |place| {
            Box::pin(etcd_api::connect(place))
        })
        .not_for_tasks("it makes one key for a lease, so tasks that share a client share the lock"),
        Contestant::new("etcd's recipe", Role::Peer, |place| {
            Box::pin(etcd_recipe::connect(place))
        }),
        Contestant::new("create, retry 10 ms", Role::Peer, |place| {
            Box::pin(async move { Ok(Retry::every(SHORT, Create(Leased::connect(&place).await?))) })
        })
        .looks_after(SHORT),
        Contestant::new("create, retry 100 ms", Role::Peer, |place| {
            Box::pin(async move { Ok(Retry::every(LONG, Create(Leased::connect(&place).await?))) })
        })
        .looks_after(LONG),
    ]
}

pub(crate) fn jetstream() -> Vec<Contestant> {
    vec![
        Contestant::new("KV create, retry 10 ms", Role::Peer, |place| {
            Box::pin(async move { Ok(Retry::every(SHORT, jetstream_kv::connect(&place).await?)) })
        })
        .looks_after(SHORT),
        Contestant::new("KV create, retry 100 ms", Role::Peer, |place| {
            Box::pin(async move { Ok(Retry::every(LONG, jetstream_kv::connect(&place).await?)) })
        })
        .looks_after(LONG),
    ]
}

/// What a peer's client comes to.
type Client = crate::fault::Verdict<Arc<dyn crate::contestants::Locker>>;
