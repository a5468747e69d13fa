//! The key layout: which keys a lock lives in.
//!
//! A lock name belongs to one of the namespace's partitions, by a stable hash. All keys of a
//! partition share a hash tag, so that a script may touch several of them on Redis Cluster, and each
//! key begins with `dlock:`, so that an access rule can name them.
//!
//! | key | type | what |
//! | --- | --- | --- |
//! | `dlock:{<namespace>}:format` | string | what all clients of the namespace agree on |
//! | `dlock:{<namespace>.<partition>}:leases` | sorted set | the sessions' leases |
//! | `dlock:{<namespace>.<partition>}:last` | string | the last number in the partition's order |
//! | `dlock:{<namespace>.<partition>}:claims` | sorted set | which session has which claims |
//! | `dlock:{<namespace>.<partition>}:n:<name>` | sorted set | one lock's queue |
//!
//! A namespace may hold dots; a partition is a number, so no two pairs share a tag. Pushes go through
//! the channels `dlock:{<namespace>}:s:<session>`.

use dlock_core::{LockName, Namespace, SessionId};

/// How many hash slots a Redis Cluster has.
const SLOTS: u16 = 16_384;

/// The namespace's keys.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    namespace: Namespace,
    /// What all keys of each partition begin with, and their hash slot.
    partitions: Vec<(String, u16)>,
}

/// One of the namespace's partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Partition(u32);

impl Layout {
    /// A namespace has at most this many partitions: each costs a heartbeat of every session that
    /// uses it.
    pub(crate) const MAX_PARTITIONS: u32 = 1024;

    /// `partitions` is at least 1.
    pub(crate) fn new(namespace: Namespace, partitions: u32) -> Self {
        let partitions = (0..partitions)
            .map(|number| {
                let tag = format!("{namespace}.{number}");
                (format!("dlock:{{{tag}}}:"), slot_of_tag(&tag))
            })
            .collect();
        Self {
            namespace,
            partitions,
        }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn count(&self) -> u32 {
        self.partitions.len() as u32
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.count()).map(Partition)
    }

    /// Where a lock lives. It must never change while the namespace has data.
    pub(crate) fn of(&self, name: &LockName) -> Partition {
        self.spread(name.as_str())
    }

    /// Where a session's lease is from the start.
    pub(crate) fn home_of(&self, session: SessionId) -> Partition {
        self.spread(&session.to_string())
    }

    fn spread(&self, text: &str) -> Partition {
        let hash = fnv_1a(text.as_bytes());
        // The upper half is folded in: alone, the lowest bits depend on the lowest bits alone.
        Partition((hash ^ hash >> 16) % self.count())
    }

    /// The hash slot of all of the partition's keys.
    pub(crate) fn slot(&self, partition: Partition) -> u16 {
        self.partitions[partition.0 as usize].1
    }

    fn key(&self, partition: Partition, what: &str) -> String {
        [&self.partitions[partition.0 as usize].0, what].concat()
    }

    pub(crate) fn leases(&self, partition: Partition) -> String {
        self.key(partition, "leases")
    }

    pub(crate) fn claims(&self, partition: Partition) -> String {
        self.key(partition, "claims")
    }

    /// The keys that a script about one lock declares, in its order.
    pub(crate) fn lock(&self, name: &LockName) -> Vec<String> {
        let partition = self.of(name);
        vec![
            self.leases(partition),
            self.key(partition, "last"),
            self.claims(partition),
            self.key(partition, &["n:", name.as_str()].concat()),
        ]
    }

    /// The channel of a session's pushes. The scripts make it from a key.
    pub(crate) fn channel(&self, session: SessionId) -> String {
        format!("dlock:{{{}}}:s:{session}", self.namespace)
    }
}

/// The key of the record that all clients of a namespace agree on, and its hash slot.
pub(crate) fn format_record(namespace: &Namespace) -> (String, u16) {
    (
        format!("dlock:{{{namespace}}}:format"),
        slot_of_tag(namespace.as_str()),
    )
}

fn slot_of_tag(tag: &str) -> u16 {
    crc16(tag.as_bytes()) % SLOTS
}

/// FNV-1a with 32 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>. Not the cluster's CRC, which
/// spreads numbered names unevenly.
fn fnv_1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811C_9DC5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// CRC-16/XMODEM: the hash of Redis Cluster's specification, "Key distribution model".
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(partitions: u32) -> Layout {
        Layout::new(Namespace::new("team.a").unwrap(), partitions)
    }

    #[test]
    fn the_hashes_are_those_of_their_specifications() {
        assert_eq!(fnv_1a(b"foobar"), 0xBF9C_F968);
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of_tag("foo"), 12_182);
        assert_eq!(slot_of_tag(""), 0);
    }

    #[test]
    fn a_lock_s_keys_share_the_tag_of_its_partition_whatever_its_name() {
        let layout = layout(16);
        for name in ["a", "a{b}c", "{x}", "a:b", "}"] {
            let name = LockName::new(name).unwrap();
            let tag = format!("dlock:{{team.a.{}}}:", layout.of(&name).0);
            let keys = layout.lock(&name);
            assert!(keys.iter().all(|key| key.starts_with(&tag)), "{keys:?}");
            assert!(keys[3..].iter().all(|key| key.ends_with(name.as_str())));
        }
    }

    /// Changing this would let two versions of the library grant one lock twice.
    #[test]
    fn names_stay_where_they_are() {
        let places = ["a", "b", "nightly-report", "ü"]
            .map(|name| layout(16).of(&LockName::new(name).unwrap()).0);
        assert_eq!(places, [0, 9, 2, 7]);
    }

    #[test]
    fn names_spread_over_all_partitions() {
        let layout = layout(16);
        let mut seen = [0; 16];
        for number in 0..1600 {
            seen[layout
                .of(&LockName::new(format!("lock-{number}")).unwrap())
                .0 as usize] += 1;
        }
        assert!(
            seen.iter().all(|count| (50..=150).contains(count)),
            "{seen:?}"
        );
    }
}
