//! The cases, a file for each of the contract's rules (or two that belong together).

mod anew;
mod cancel;
mod cancel_points;
mod chaos;
mod close;
mod costs;
mod costs_growth;
mod fair;
mod fair_queue;
mod fence;
mod honest;
mod inspect;
mod limits;
mod live_a;
mod live_a_late;
mod live_a_process;
mod live_b;
mod live_b_back;
mod live_b_deadline;
mod modes;
mod names;
mod nodes;
mod nodes_quorum;
mod once;
mod once_late;
mod release;
mod servers;
mod together;
mod wake;
mod workload;

use crate::case::Case;

/// All of them, in no order that matters.
pub(crate) fn all() -> Vec<Case> {
    let files = [
        modes::cases,
        chaos::cases,
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
        live_a_late::cases,
        live_a_process::cases,
        live_b::cases,
        live_b_back::cases,
        live_b_deadline::cases,
        wake::cases,
        once::cases,
        once_late::cases,
        fence::cases,
        limits::cases,
        servers::cases,
        together::cases,
        anew::cases,
        nodes::cases,
        nodes_quorum::cases,
        costs::cases,
        costs_growth::cases,
    ];
    files.iter().flat_map(|cases| cases()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::case::RULES;

    #[test]
    fn every_case_names_a_rule_and_every_rule_has_a_case() {
        let cases = super::all();
        let names: HashSet<&str> = cases.iter().map(|case| case.name()).collect();
        assert_eq!(names.len(), cases.len(), "two cases have one name");
        let rule = |name: &str| name.split('/').next().map(str::to_owned);
        for name in &names {
            let rule = rule(name).unwrap();
            assert!(rule == "COSTS" || RULES.contains(&&*rule), "{name}");
        }
        for id in RULES {
            assert!(
                names.iter().any(|name| rule(name).as_deref() == Some(id)),
                "{id}"
            );
        }
    }

    #[test]
    fn every_ordered_pair_of_modes_is_a_case() {
        let cases = super::all();
        let pairs = cases.iter().filter(|case| case.name().contains("-beside-"));
        assert_eq!(pairs.count(), 36);
    }
}
