//! The Lua scripts: what they are put together from.
//!
//! A script is a head with its flags, the shared parts that it needs, the core's table of modes among
//! them (so that it exists once), and its own file.

use std::fmt::Write as _;

use dlock_core::Mode;
use dlock_core::mutants::{Mutant, is_on};

/// One script: its text, and the hash by which it is called.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) text: String,
    pub(crate) hash: String,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) request: Script,
    pub(crate) status: Script,
    pub(crate) withdraw: Script,
    pub(crate) replace: Script,
    pub(crate) reap: Script,
    pub(crate) renew: Script,
    pub(crate) close: Script,
    pub(crate) leftovers: Script,
    pub(crate) inspect: Script,
    pub(crate) names: Script,
}

const CLOCK: &str = include_str!("scripts/clock.lua");
const LOCK: &str = include_str!("scripts/lock.lua");
const CLAIM: &str = include_str!("scripts/claim.lua");
const LEASE: &str = include_str!("scripts/lease.lua");
const ORDER: &str = include_str!("scripts/order.lua");
const ENTER: &str = include_str!("scripts/enter.lua");
const REQUEST_FREE: &str = include_str!("scripts/request_free.lua");
const REQUEST: &str = include_str!("scripts/request.lua");
const LEAVE: &str = include_str!("scripts/leave.lua");
const QUEUE: &str = include_str!("scripts/queue.lua");
const ANSWER: &str = include_str!("scripts/answer.lua");

/// How far apart the numbers in a partition's order are, at least. Whoever made 60,000 of them a second would run
/// ahead of the time.
pub(crate) const ORDER_STEP: u64 = 16;

/// A server without memory refuses it: it makes data.
const MAKES_DATA: &str = "#!lua\n";
/// It must work on a server without memory: it frees, or keeps alive what is there (ATOM-B).
const KEEPS_OR_FREES: &str = "#!lua flags=allow-oom\n";
/// It only reads.
const READS: &str = "#!lua flags=no-writes\n";

impl Scripts {
    pub(crate) fn new() -> Self {
        let mutants = mutants();
        let order = format!("local ORDER_STEP = {ORDER_STEP}\n{ORDER}");
        let script = |head: &str, parts: &[&str]| {
            let text = format!("{head}{mutants}{}", parts.concat());
            Script {
                hash: redis::Script::new(&text).get_hash().to_owned(),
                text,
            }
        };
        let about_one_claim = [CLOCK, LOCK, CLAIM, LEASE, &order].concat();
        let queue = [&conflicts(), QUEUE].concat();
        // The server runs the text from its beginning at each call. So what ends most calls stands
        // before what only the others need.
        Self {
            request: script(
                MAKES_DATA,
                &[
                    &about_one_claim,
                    ENTER,
                    REQUEST_FREE,
                    &queue,
                    ANSWER,
                    REQUEST,
                ],
            ),
            status: script(
                KEEPS_OR_FREES,
                &[
                    &about_one_claim,
                    &queue,
                    ANSWER,
                    include_str!("scripts/status.lua"),
                ],
            ),
            withdraw: script(
                KEEPS_OR_FREES,
                &[
                    LOCK,
                    CLAIM,
                    LEAVE,
                    include_str!("scripts/withdraw_held.lua"),
                    CLOCK,
                    LEASE,
                    &order,
                    &queue,
                    include_str!("scripts/withdraw.lua"),
                ],
            ),
            replace: script(
                MAKES_DATA,
                &[
                    &about_one_claim,
                    ENTER,
                    LEAVE,
                    include_str!("scripts/replace_held.lua"),
                    REQUEST_FREE,
                    &queue,
                    ANSWER,
                    include_str!("scripts/replace.lua"),
                    REQUEST,
                ],
            ),
            reap: script(
                KEEPS_OR_FREES,
                &[
                    CLOCK,
                    LOCK,
                    &order,
                    &queue,
                    include_str!("scripts/reap.lua"),
                ],
            ),
            renew: script(KEEPS_OR_FREES, &[CLOCK, include_str!("scripts/renew.lua")]),
            close: script(KEEPS_OR_FREES, &[CLOCK, include_str!("scripts/close.lua")]),
            leftovers: script(
                KEEPS_OR_FREES,
                &[CLOCK, include_str!("scripts/leftovers.lua")],
            ),
            inspect: script(READS, &[CLOCK, LOCK, include_str!("scripts/inspect.lua")]),
            names: script(READS, &[CLOCK, include_str!("scripts/names.lua")]),
        }
    }
}

/// The table of modes in Lua: `conflicting(mode)` is the positions in a lock's queue of all that
/// conflicts with a mode, by its index, as ranges of neighbours, which are what a sorted set can count.
///
/// Modes that wait have the positions of those that hold in reverse: then most modes have one range.
fn conflicts() -> String {
    let last = 2 * Mode::ALL.len() - 1;
    let mut text = String::from("local function conflicting(mode)\n");
    for mode in Mode::ALL {
        let modes = Mode::ALL
            .into_iter()
            .filter(|other| !mode.compatible(*other));
        let held: Vec<usize> = modes.map(Mode::index).collect();
        let waiting = held.iter().rev().map(|index| last - index);
        let positions: Vec<usize> = held.iter().copied().chain(waiting).collect();
        let ranges: Vec<String> = positions
            .chunk_by(|a, b| a + 1 == *b)
            .map(|range| format!("{{ {}, {} }}", range[0], range[range.len() - 1]))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  if mode == {} then return {{ {} }} end -- {mode}",
            mode.index(),
            ranges.join(", ")
        );
    }
    text.push_str("end\n");
    text
}

/// Which known-bad variant is on.
fn mutants() -> String {
    let mut text = String::new();
    for (variable, mutant) in [
        ("UNCHECKED_RELEASE", Mutant::UncheckedRelease),
        ("FORGOTTEN_WITHDRAW", Mutant::ForgottenWithdraw),
        ("REPEATED_CLAIM", Mutant::RepeatedClaim),
        ("OVERTAKING", Mutant::Overtaking),
        ("UNSWEPT_CLAIMS", Mutant::UnsweptClaims),
        ("REVIVED_SESSION", Mutant::RevivedSession),
        ("TOKENS_FROM_ZERO", Mutant::TokensFromZero),
    ] {
        let _ = writeln!(text, "local {variable} = {}", is_on(mutant));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ATOM-A: what the scripts know of the modes is the core's table.
    #[test]
    fn the_table_in_lua_is_the_core_s() {
        let text = conflicts();
        for line in [
            "mode == 0 then return {  } end -- NL",
            "mode == 1 then return { { 5, 6 } } end -- CR",
            "mode == 2 then return { { 3, 8 } } end -- CW",
            "mode == 3 then return { { 2, 2 }, { 4, 7 }, { 9, 9 } } end -- PR",
            "mode == 4 then return { { 2, 9 } } end -- PW",
            "mode == 5 then return { { 1, 10 } } end -- EX",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
