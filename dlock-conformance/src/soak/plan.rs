//! What the nemesis does, and when: decided by the seed alone.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::target::{Condition, Harm};

/// What can be done to a run on this target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    /// How many workers there are.
    pub(super) members: usize,
    /// Whether their networks can be broken.
    pub(super) networks: bool,
    /// How many servers there are to harm.
    pub(super) nodes: usize,
    /// Whether the store can lose its data.
    pub(super) wipe: bool,
    /// Whether workers' clocks can jump: on etcd tokens follow them, so not where others work too.
    pub(super) clocks: bool,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strike {
    /// SIGKILL. Another process takes the worker's place when the time is over.
    Kill { member: usize },
    /// SIGSTOP, and SIGCONT when the time is over.
    Freeze { member: usize },
    /// Its network is like this until the time is over.
    Network { member: usize, condition: Condition },
    /// Its connections are reset again and again.
    ResetStorm { member: usize },
    /// Its pushes are lost.
    Deaf { member: usize },
    /// Its wall clock is off by so much until the time is over.
    ClockJump { member: usize, millis: i64 },
    /// The server that decides, or any one.
    Server {
        harm: Harm,
        leader: bool,
        node: usize,
    },
    /// The server ends and starts again at once.
    Restart { node: usize },
    /// The store loses its data.
    Wipe,
}

/// A fault, how long it lasts, and how long there is peace after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) strike: Strike,
    pub(super) lasts: Duration,
    pub(super) then: Duration,
}

/// The faults of one lane, one after the other, without an end.
#[derive(Debug)]
pub(super) struct Plan {
    lane: Lane,
    random: Rng,
    abilities: Abilities,
    ttl: Duration,
}

/// Workers and servers are harmed side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Workers,
    Servers,
}

impl Plan {
    pub(super) fn new(lane: Lane, seed: u64, abilities: Abilities, ttl: Duration) -> Self {
        let lane_of = u64::from(lane == Lane::Servers);
        Self {
            lane,
            random: Rng::with_seed(seed.wrapping_mul(2).wrapping_add(lane_of)),
            abilities,
            ttl,
        }
    }

    /// Between these parts of the TTL.
    fn time(&mut self, least: f64, most: f64) -> Duration {
        let part = least + (most - least) * self.random.f64();
        // Whole milliseconds, which people can read.
        Duration::from_millis((self.ttl.as_secs_f64() * 1000.0 * part) as u64)
    }

    fn step(&mut self) -> Step {
        let (strike, lasts) = match self.lane {
            Lane::Workers => self.against_a_worker(),
            Lane::Servers => self.against_a_server(),
        };
        let then = match self.lane {
            Lane::Workers => self.time(0.1, 0.6),
            // The clients shall come to work in between.
            Lane::Servers => self.time(1.0, 3.0),
        };
        Step {
            strike,
            lasts,
            then,
        }
    }

    fn against_a_worker(&mut self) -> (Strike, Duration) {
        let member = self.random.usize(..self.abilities.members);
        let network = |condition| Strike::Network { member, condition };
        // Below the TTL it must be ridden out, above it the locks are lost.
        let lasts = self.time(0.2, 2.2);
        let jumps = self.abilities.clocks;
        let strike = match self
            .random
            .u8(..if self.abilities.networks { 20 } else { 8 })
        {
            0 | 1 => Strike::Kill { member },
            2..=4 => Strike::Freeze { member },
            5 | 6 => Strike::Deaf { member },
            7 if jumps => {
                let hours = self.random.i64(-36..=36);
                let millis = hours * 3_600_000 + self.random.i64(-999..=999);
                Strike::ClockJump { member, millis }
            }
            7 => Strike::Deaf { member },
            8..=10 => network(Condition::Cut),
            11 | 12 => network(Condition::CutToStore),
            13 | 14 => network(Condition::CutFromStore),
            15 => network(Condition::Refused),
            16 => network(Condition::Held),
            17 => Strike::ResetStorm { member },
            slow => {
                let (to_store, from_store) = if slow == 18 {
                    (self.ttl / 4, self.ttl / 4)
                } else if self.random.bool() {
                    (self.ttl, self.ttl)
                } else {
                    (Duration::ZERO, self.ttl * 2)
                };
                network(Condition::Slow {
                    to_store,
                    from_store,
                })
            }
        };
        (strike, lasts)
    }

    fn against_a_server(&mut self) -> (Strike, Duration) {
        let node = self.random.usize(..self.abilities.nodes.max(1));
        let leader = self.random.u8(..3) > 0;
        let harm = match self
            .random
            .u8(..if self.abilities.nodes > 1 { 9 } else { 6 })
        {
            0..=2 => Harm::Killed,
            3..=5 => Harm::Frozen,
            _ => Harm::CutOff,
        };
        let lasts = self.time(0.3, 2.0);
        let strike = match self.random.u8(..12) {
            0 | 1 => Strike::Restart { node },
            2 if self.abilities.wipe => Strike::Wipe,
            _ => Strike::Server { harm, leader, node },
        };
        (strike, lasts)
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let nobody = match self.lane {
            Lane::Workers => self.abilities.members == 0,
            Lane::Servers => self.abilities.nodes == 0,
        };
        (!nobody).then(|| self.step())
    }
}

impl Strike {
    /// The kind, by which faults are counted.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Strike::Kill { .. } => "worker killed",
            Strike::Freeze { .. } => "worker frozen",
            Strike::Network { condition, .. } => match condition {
                Condition::Clear => "network clear",
                Condition::Refused => "connections refused",
                Condition::Cut => "network cut",
                Condition::CutToStore => "requests lost",
                Condition::CutFromStore => "answers lost",
                Condition::Held => "requests held back",
                Condition::Slow { .. } => "network slow",
            },
            Strike::ResetStorm { .. } => "reset storm",
            Strike::Deaf { .. } => "pushes lost",
            Strike::ClockJump { .. } => "wall clock jumps",
            Strike::Server { harm, .. } => match harm {
                Harm::Killed => "server killed",
                Harm::Frozen => "server frozen",
                Harm::CutOff => "server cut off",
            },
            Strike::Restart { .. } => "server restarted",
            Strike::Wipe => "data lost",
        }
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strike::Kill { member } => write!(f, "p{member} is killed"),
            Strike::Freeze { member } => write!(f, "p{member} is frozen"),
            Strike::Network { member, condition } => write!(f, "p{member}'s path: {condition}"),
            Strike::ResetStorm { member } => write!(f, "p{member}'s connections are reset"),
            Strike::Deaf { member } => write!(f, "p{member} hears no pushes"),
            Strike::ClockJump { member, millis } => {
                write!(f, "p{member}'s wall clock jumps by {millis} ms")
            }
            Strike::Server { harm, leader, node } => {
                if *leader {
                    write!(f, "the leader is {harm}")
                } else {
                    write!(f, "server {node} is {harm}")
                }
            }
            Strike::Restart { node } => write!(f, "server {node} is restarted"),
            Strike::Wipe => f.write_str("the store loses its data"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TTL: Duration = Duration::from_secs(2);

    fn plan(lane: Lane, seed: u64) -> Plan {
        let abilities = Abilities {
            members: 4,
            networks: true,
            nodes: 3,
            wipe: true,
            clocks: true,
        };
        Plan::new(lane, seed, abilities, TTL)
    }

    #[test]
    fn the_seed_decides() {
        for lane in [Lane::Workers, Lane::Servers] {
            let of = |seed| plan(lane, seed).take(100).collect::<Vec<_>>();
            assert_eq!(of(7), of(7));
            assert_ne!(of(7), of(8));
        }
    }

    #[test]
    fn every_kind_of_fault_comes_soon() {
        let kinds = |lane| -> HashSet<&str> {
            let steps = plan(lane, 1).take(300);
            steps.map(|step| step.strike.kind()).collect()
        };
        assert_eq!(kinds(Lane::Workers).len(), 11);
        assert_eq!(kinds(Lane::Servers).len(), 5);
    }
}
