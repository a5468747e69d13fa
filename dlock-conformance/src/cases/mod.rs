//! The cases, a file for each of the contract's rules (or two that belong together).

mod cancel;
mod cancel_points;
mod close;
mod costs;
mod costs_growth;
mod fair;
mod fair_queue;
mod fence;
mod honest;
mod inspect;
mod live_a;
mod live_a_process;
mod live_b;
mod live_b_back;
mod modes;
mod names;
mod once;
mod once_late;
mod release;
mod wake;

use crate::case::Case;

/// All of them, in no order that matters.
pub(crate) fn all() -> Vec<Case> {
    let files = [
        modes::cases,
        names::cases,
        fair::cases,
        fair_queue::cases,
        honest::cases,
        inspect::cases,
        cancel::cases,
        cancel_points::cases,
        release::cases,
        close::cases,
        live_a::cases,
        live_a_process::cases,
        live_b::cases,
        live_b_back::cases,
        wake::cases,
        once::cases,
        once_late::cases,
        fence::cases,
        costs::cases,
        costs_growth::cases,
    ];
    files.iter().flat_map(|cases| cases()).collect()
}
