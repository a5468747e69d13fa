//! Which keys a session's claims have.
//!
//! etcd remembers every key that there ever was until somebody compacts its history, and a range of keys walks
//! over them all. If each claim had a key of its own, a lock would grow slower with each acquisition. So a key
//! is used again once its claim is gone, by the next claim of the session on the same lock in the same mode:
//! the key's creation tells them apart.
//!
//! It is used again only where no message can be on its way that was about an earlier claim: a late request
//! would be taken for the new claim's, and a late withdraw would take it out (ATOM-B, ONCE). A key of which that
//! is not certain is never used again.

use std::collections::HashMap;

use dlock_core::{LockName, Mode};

/// The numbers in the keys of one session's claims.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pools: HashMap<(LockName, Mode), Pool>,
    /// How many keys were given up. A pool that is made anew does not count from where an earlier one of the
    /// same lock did, which may have held one of them.
    given_up: u32,
}

#[derive(Debug)]
struct Pool {
    free: Vec<u64>,
    next: u64,
    taken: usize,
}

impl Slots {
    /// One that no claim has.
    pub(crate) fn take(&mut self, name: &LockName, mode: Mode) -> u64 {
        let first = u64::from(self.given_up) << 32;
        let pool = self.pools.entry((name.clone(), mode)).or_insert(Pool {
            free: Vec::new(),
            next: first,
            taken: 0,
        });
        pool.taken += 1;
        pool.free.pop().unwrap_or_else(|| {
            pool.next += 1;
            pool.next - 1
        })
    }

    /// Its claim is gone; whether nothing that was sent about that claim can still arrive.
    pub(crate) fn give_back(&mut self, name: &LockName, mode: Mode, slot: u64, all_arrived: bool) {
        let lock = (name.clone(), mode);
        let Some(pool) = self.pools.get_mut(&lock) else {
            return;
        };
        pool.taken -= 1;
        if all_arrived {
            pool.free.push(slot);
        } else {
            self.given_up += 1;
        }
        if pool.taken == 0 {
            self.pools.remove(&lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_used_again_unless_something_may_still_arrive() {
        let (name, mode) = (LockName::new("n").unwrap(), Mode::Exclusive);
        let mut slots = Slots::default();
        let mut given_up = Vec::new();
        for round in 0..5 {
            let (first, second) = (slots.take(&name, mode), slots.take(&name, mode));
            assert_ne!(first, second, "two claims at once");
            for slot in [first, second] {
                assert!(!given_up.contains(&slot), "{slot} in round {round}");
            }
            slots.give_back(&name, mode, first, true);
            assert_eq!(slots.take(&name, mode), first);
            slots.give_back(&name, mode, second, round % 2 == 0);
            if round % 2 == 1 {
                given_up.push(second);
                let third = slots.take(&name, mode);
                assert_ne!(third, second);
                slots.give_back(&name, mode, third, true);
            }
            slots.give_back(&name, mode, first, true);
            assert!(slots.pools.is_empty(), "a free lock is forgotten");
        }
    }

    #[test]
    fn what_was_never_in_doubt_stays_few() {
        let (name, mode) = (LockName::new("n").unwrap(), Mode::ProtectedRead);
        let mut slots = Slots::default();
        for _ in 0..100 {
            let both = [slots.take(&name, mode), slots.take(&name, mode)];
            assert!(both.iter().all(|slot| *slot < 2), "{both:?}");
            for slot in both {
                slots.give_back(&name, mode, slot, true);
            }
        }
    }
}
