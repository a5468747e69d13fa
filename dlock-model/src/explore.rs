//! Whether a model has cycles.
//!
//! In a model without cycles every run ends, so a property of the final states is one of every run.

use std::collections::HashMap;
use std::hash::BuildHasher;

use stateright::Model;

use crate::model::{LockModel, Shape, World};

/// The final states are reached by every run: no state comes again.
///
/// It takes away the states that nothing leads to, again and again. On a cycle some are left.
pub fn is_acyclic<S: Shape>(model: &LockModel<S>) -> bool {
    let mut numbers: HashMap<u64, u32> = HashMap::new();
    let hasher = std::hash::RandomState::new();
    let mut states: Vec<Option<World<S>>> = Vec::new();
    let mut edges: Vec<Vec<u32>> = Vec::new();
    let mut arrivals: Vec<u32> = Vec::new();
    let mut number_of = |state: World<S>, states: &mut Vec<Option<World<S>>>| {
        *numbers.entry(hasher.hash_one(&state)).or_insert_with(|| {
            states.push(Some(state));
            u32::try_from(states.len() - 1).unwrap_or(u32::MAX)
        })
    };
    for state in model.init_states() {
        number_of(state, &mut states);
    }
    let mut next = 0;
    while next < states.len() {
        let state = states[next].take();
        let steps = state.map_or_else(Vec::new, |state| model.next_steps(&state));
        let successors: Vec<u32> = steps
            .into_iter()
            .map(|(_, state)| number_of(state, &mut states))
            .collect();
        arrivals.resize(states.len(), 0);
        for successor in &successors {
            arrivals[*successor as usize] += 1;
        }
        edges.push(successors);
        next += 1;
    }
    let mut free: Vec<usize> = (0..edges.len()).filter(|at| arrivals[*at] == 0).collect();
    let mut taken = 0;
    while let Some(at) = free.pop() {
        taken += 1;
        for successor in &edges[at] {
            let successor = *successor as usize;
            arrivals[successor] -= 1;
            if arrivals[successor] == 0 {
                free.push(successor);
            }
        }
    }
    taken == edges.len()
}
