//! The Lua scripts: what they are put together from.
//!
//! A script is a head with its flags, a few constants made from the core's tables (so that the
//! table of modes exists once), the shared parts that it needs, and its own file.

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

/// A server without memory refuses it: it makes data.
const MAKES_DATA: &str = "#!lua\n";
/// It must work on a server without memory: it frees, or keeps alive what is there (ATOM-B).
const KEEPS_OR_FREES: &str = "#!lua flags=allow-oom\n";
/// It only reads.
const READS: &str = "#!lua flags=no-writes\n";

impl Scripts {
    pub(crate) fn new() -> Self {
        let constants = constants();
        let script = |head: &str, parts: &[&str]| {
            let text = format!("{head}{constants}{CLOCK}{}", parts.concat());
            Script {
                hash: redis::Script::new(&text).get_hash().to_owned(),
                text,
            }
        };
        Self {
            request: script(
                MAKES_DATA,
                &[LOCK, CLAIM, include_str!("scripts/request.lua")],
            ),
            status: script(
                KEEPS_OR_FREES,
                &[LOCK, CLAIM, include_str!("scripts/status.lua")],
            ),
            withdraw: script(
                KEEPS_OR_FREES,
                &[LOCK, CLAIM, include_str!("scripts/withdraw.lua")],
            ),
            reap: script(KEEPS_OR_FREES, &[LOCK, include_str!("scripts/reap.lua")]),
            renew: script(KEEPS_OR_FREES, &[include_str!("scripts/renew.lua")]),
            close: script(KEEPS_OR_FREES, &[include_str!("scripts/close.lua")]),
            leftovers: script(KEEPS_OR_FREES, &[include_str!("scripts/leftovers.lua")]),
            inspect: script(READS, &[include_str!("scripts/inspect.lua")]),
            names: script(READS, &[include_str!("scripts/names.lua")]),
        }
    }
}

/// The table of modes in Lua, and which known-bad variant is on.
///
/// `CONFLICTS[mode].modes` lists the modes that conflict with a mode, by their index, and `.ranges`
/// the same as ranges of neighbours, which are what a sorted set can count.
fn constants() -> String {
    let mut text = String::from("local CONFLICTS = {\n");
    for mode in Mode::ALL {
        let conflicting: Vec<usize> = Mode::ALL
            .into_iter()
            .filter(|other| !mode.compatible(*other))
            .map(Mode::index)
            .collect();
        let modes: Vec<String> = conflicting.iter().map(ToString::to_string).collect();
        let ranges: Vec<String> = conflicting
            .chunk_by(|a, b| a + 1 == *b)
            .map(|range| format!("{{ {}, {} }}", range[0], range[range.len() - 1]))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  [{}] = {{ modes = {{ {} }}, ranges = {{ {} }} }}, -- {mode}",
            mode.index(),
            modes.join(", "),
            ranges.join(", ")
        );
    }
    text.push_str("}\n");
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
        let text = constants();
        for line in [
            "[0] = { modes = {  }, ranges = {  } }, -- NL",
            "[1] = { modes = { 5 }, ranges = { { 5, 5 } } }, -- CR",
            "[2] = { modes = { 3, 4, 5 }, ranges = { { 3, 5 } } }, -- CW",
            "[3] = { modes = { 2, 4, 5 }, ranges = { { 2, 2 }, { 4, 5 } } }, -- PR",
            "[4] = { modes = { 2, 3, 4, 5 }, ranges = { { 2, 5 } } }, -- PW",
            "[5] = { modes = { 1, 2, 3, 4, 5 }, ranges = { { 1, 5 } } }, -- EX",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
