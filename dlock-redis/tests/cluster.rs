//! A Redis Cluster of three nodes, also while a slot moves from one to another.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use dlock_core::{Attempts, Backend, Claim, Mode, Push, StoreErrorKind, Wait};
use support::{Client, Cluster, IMAGES, Raw, connect, ids, is_granted, is_waiting, until};

const LONG: Duration = Duration::from_secs(600);

async fn unavailable<T: std::fmt::Debug>(
    what: impl Future<Output = Result<T, dlock_core::StoreError>>,
) {
    let fault = what.await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Unavailable, "{fault}");
    assert!(fault.to_string().contains("TRYAGAIN"), "{fault}");
}

/// ATOM-A, FAIR, WAKE over all partitions, from two clients that know different nodes.
#[tokio::test]
async fn many_locks_over_all_nodes() {
    for image in [IMAGES[0], IMAGES[2]] {
        let cluster = Cluster::start(image).await;
        let [first, second, _] = cluster.ports;
        let one = connect(&format!("redis://127.0.0.1:{first}?cluster=true"))
            .await
            .unwrap();
        let hosts = format!("redis://127.0.0.1:1,127.0.0.1:{second}");
        let other = connect(&hosts).await.unwrap();
        let mut holder = Client::open(&one, LONG).await;
        let mut waiter = Client::open(&other, LONG).await;
        let names: Vec<String> = (0..100).map(|n| format!("lock-{n}")).collect();
        let mut held: Vec<Claim> = Vec::new();
        for name in &names {
            let claim = holder.claim(name, Mode::Exclusive);
            assert!(is_granted(
                holder.session().request(&claim, Wait::Never).await.unwrap()
            ));
            held.push(claim);
            let claim = waiter.claim(name, Mode::ProtectedRead);
            assert!(is_waiting(
                waiter
                    .session()
                    .request(&claim, Wait::InTurn)
                    .await
                    .unwrap()
            ));
            assert!(matches!(holder.push().await, Push::Contended(_)));
            let snapshot = other.inspect(&claim.name).await.unwrap();
            assert_eq!(
                ids(&snapshot),
                (vec![held[held.len() - 1].id], vec![claim.id])
            );
        }
        let listed = one.names().await.unwrap();
        let listed: BTreeSet<&str> = listed.iter().map(|name| name.as_str()).collect();
        assert_eq!(listed, names.iter().map(String::as_str).collect());
        let mut leases = 0;
        for port in cluster.ports {
            let keys: Vec<String> = Raw::to(port).await.run(&["KEYS", "*:leases"]).await;
            assert!(!keys.is_empty(), "every node has some of the partitions");
            leases += keys.len();
        }
        assert_eq!(leases, 16);
        holder.session().renew().await.unwrap();
        for claim in &held[..50] {
            holder
                .session()
                .withdraw(claim, Attempts::Answered)
                .await
                .unwrap();
            assert!(matches!(waiter.push().await, Push::Granted(..)));
        }
        holder.session().close().await.unwrap();
        for _ in 50..100 {
            assert!(matches!(waiter.push().await, Push::Granted(..)));
        }
        waiter.session().close().await.unwrap();
        assert_eq!(one.names().await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_cluster_must_be_named_one_and_has_one_database() {
    let cluster = Cluster::start(IMAGES[1]).await;
    let port = cluster.ports[0];
    for (url, expected) in [
        (format!("redis://127.0.0.1:{port}"), "set cluster=true"),
        (format!("redis://127.0.0.1:{port}/1"), "cluster=true"),
        (
            format!("redis://127.0.0.1:{port}/1?cluster=true"),
            "database 0 alone",
        ),
    ] {
        let fault = connect(&url).await.unwrap_err().to_string();
        assert!(fault.contains(expected), "{url}: {fault}");
    }
}

/// While a slot moves, a script whose keys are not all on one node is refused whole (TRYAGAIN), and
/// leases are renewed all the same. Afterwards everything is as it was.
#[tokio::test]
async fn a_slot_that_moves_to_another_node() {
    for image in IMAGES {
        let cluster = Cluster::start(image).await;
        let url = format!("redis://127.0.0.1:{}?cluster=true", cluster.ports[0]);
        let backend = connect(&url).await.unwrap();
        let mut holder = Client::open(&backend, LONG).await;
        let mut waiter = Client::open(&backend, LONG).await;
        let held = holder.claim("n", Mode::Exclusive);
        let wanted = waiter.claim("n", Mode::ProtectedRead);
        assert!(is_granted(
            holder.session().request(&held, Wait::Never).await.unwrap()
        ));
        assert!(is_waiting(
            waiter
                .session()
                .request(&wanted, Wait::InTurn)
                .await
                .unwrap()
        ));
        assert_eq!(holder.push().await, Push::Contended(held.id));
        let mut moving = Moving::find(&cluster, "n").await;
        // A lock of the same partition that nobody uses.
        let mut free = holder.claim("x", Mode::Exclusive);
        for number in 0.. {
            free = holder.claim(&format!("x-{number}"), Mode::Exclusive);
            holder.session().request(&free, Wait::Never).await.unwrap();
            let is_here = moving
                .keys()
                .await
                .iter()
                .any(|key| key.ends_with(free.name.as_str()));
            holder
                .session()
                .withdraw(&free, Attempts::Answered)
                .await
                .unwrap();
            if is_here {
                break;
            }
        }

        let before = backend.inspect(&held.name).await.unwrap();
        let keys = moving.keys().await;
        assert_eq!(keys.len(), 4, "{keys:?}");
        moving.begin().await;
        for moved in 0..=keys.len() {
            if moved > 0 {
                moving.migrate(&keys[moved - 1]).await;
            }
            unavailable(holder.session().request(&free, Wait::InTurn)).await;
            if (1..keys.len()).contains(&moved) {
                unavailable(holder.session().withdraw(&held, Attempts::Unanswered)).await;
                unavailable(waiter.session().request(&wanted, Wait::InTurn)).await;
                unavailable(waiter.session().status(&wanted)).await;
            } else {
                assert!(is_waiting(waiter.session().status(&wanted).await.unwrap()));
            }
            holder.session().renew().await.unwrap();
            waiter.session().renew().await.unwrap();
        }
        moving.end().await;
        until("the new place is known", async || {
            backend.inspect(&held.name).await.is_ok()
        })
        .await;
        assert_eq!(backend.inspect(&held.name).await.unwrap(), before);
        assert!(backend.inspect(&free.name).await.unwrap().is_free());

        holder
            .session()
            .withdraw(&held, Attempts::Unanswered)
            .await
            .unwrap();
        assert!(matches!(waiter.push().await, Push::Granted(id, _) if id == wanted.id));
        assert!(is_granted(
            waiter
                .session()
                .request(&wanted, Wait::InTurn)
                .await
                .unwrap()
        ));
        holder.session().close().await.unwrap();
        waiter.session().close().await.unwrap();
        assert_eq!(backend.names().await.unwrap(), []);
    }
}

/// The slot of a lock, on its way from one node to the next.
struct Moving {
    nodes: Vec<(u16, Raw, String)>,
    from: usize,
    to: usize,
    tag: String,
    slot: String,
}

impl Moving {
    async fn find(cluster: &Cluster, name: &str) -> Self {
        let mut nodes = Vec::new();
        let mut found = None;
        for (place, port) in cluster.ports.into_iter().enumerate() {
            let mut node = Raw::to(port).await;
            let keys: Vec<String> = node.run(&["KEYS", &format!("*:n:{name}")]).await;
            if let [key] = &keys[..] {
                let slot: i64 = node.run(&["CLUSTER", "KEYSLOT", key]).await;
                let tag = key.split_inclusive('}').next().unwrap().to_owned();
                found = Some((place, tag, slot.to_string()));
            }
            let id = node.run(&["CLUSTER", "MYID"]).await;
            nodes.push((port, node, id));
        }
        let (from, tag, slot) = found.unwrap();
        Self {
            nodes,
            from,
            to: (from + 1) % 3,
            tag,
            slot,
        }
    }

    /// The partition's keys on the node that it leaves.
    async fn keys(&mut self) -> Vec<String> {
        let pattern = format!("{}:*", self.tag);
        let mut keys: Vec<String> = self.nodes[self.from].1.run(&["KEYS", &pattern]).await;
        keys.sort();
        keys
    }

    async fn set_slot(&mut self, at: usize, state: &str, node: usize) {
        let id = self.nodes[node].2.clone();
        let words = ["CLUSTER", "SETSLOT", &self.slot, state, &id];
        let _: String = self.nodes[at].1.run(&words).await;
    }

    async fn begin(&mut self) {
        self.set_slot(self.to, "IMPORTING", self.from).await;
        self.set_slot(self.from, "MIGRATING", self.to).await;
    }

    async fn migrate(&mut self, key: &str) {
        let port = self.nodes[self.to].0.to_string();
        let words = ["MIGRATE", "127.0.0.1", &port, key, "0", "5000"];
        let _: String = self.nodes[self.from].1.run(&words).await;
    }

    async fn end(&mut self) {
        for at in [self.to, self.from, 3 - self.to - self.from] {
            self.set_slot(at, "NODE", self.to).await;
        }
    }
}
