//! (8) Many locks used at the same time, by a task each, over one client.

use super::{Measure, metric};
use crate::bench::Bench;
use crate::contestants::Role;
use crate::crowd::{Crowd, Kind};
use crate::sheet::Point;

pub(super) async fn run(bench: &mut Bench) {
    for count in bench.plan.names {
        let point = Point::new(Measure::ManyNames.name(), "a task each", "names", *count);
        for who in bench.in_turn() {
            // Where nobody waits, a lock that retries is the floor once more.
            let is_floor_again = who.role == Role::Peer && who.name.contains("retry");
            if !who.is_here() || is_floor_again {
                continue;
            }
            let mut crowd = Crowd::new(bench, who, Kind::Tasks, *count);
            crowd.names = (0..*count).map(|_| bench.fresh_name()).collect();
            crowd.window.turns = 1;
            if let Some(seen) = bench.attempt(&point, who.name, crowd.run()).await {
                let rate = seen.turns.grants_per_second();
                bench.sheet.put(&point, who.name, metric::PAIRS, rate);
            }
        }
    }
}
