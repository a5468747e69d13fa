//! Which cases run at the same time, in one process: see [`Pace`].

use std::sync::{Condvar, Mutex, PoisonError};

use crate::case::Pace;

/// Lets cases of one pace at a time run side by side, up to a number for each pace. Those that want to be
/// alone are so on their store.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inside: Mutex<Option<Inside>>,
    left: Condvar,
}

#[derive(Debug)]
struct Inside {
    pace: Pace,
    /// The names of the stores that they run on.
    on: Vec<String>,
}

/// A place inside. Dropping it leaves.
pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    on: String,
}

/// How many cases of this pace run side by side.
pub(crate) fn at_once(pace: Pace) -> usize {
    match pace {
        Pace::Any => 8,
        Pace::Timed => 6,
        Pace::Alone => 2,
    }
}

impl Gate {
    /// Waits for a place for a case on this store.
    pub(crate) fn enter(&self, pace: Pace, on: &str) -> Pass<'_> {
        let on = on.to_owned();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &mut *inside {
                None => {
                    *inside = Some(Inside {
                        pace,
                        on: vec![on.clone()],
                    });
                    return Pass { gate: self, on };
                }
                Some(others) if others.have_room(pace, &on) => {
                    others.on.push(on.clone());
                    return Pass { gate: self, on };
                }
                Some(_) => {
                    inside = self
                        .left
                        .wait(inside)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Inside {
    fn have_room(&self, pace: Pace, on: &String) -> bool {
        let is_free = pace != Pace::Alone || !self.on.contains(on);
        self.pace == pace && self.on.len() < at_once(pace) && is_free
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let inside = self.gate.inside.lock();
        let mut inside = inside.unwrap_or_else(PoisonError::into_inner);
        if let Some(others) = &mut *inside {
            let place = others.on.iter().position(|on| *on == self.on);
            place.map(|place| others.on.swap_remove(place));
            if others.on.is_empty() {
                *inside = None;
            }
        }
        self.gate.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Whether a case of this pace on this store gets in beside one that is alone on `redis`.
    fn gets_in(pace: Pace, on: &'static str) -> bool {
        let gate: &'static Gate = Box::leak(Box::default());
        let _inside = gate.enter(Pace::Alone, "redis");
        let (sender, entered) = mpsc::channel();
        std::thread::spawn(move || {
            let _pass = gate.enter(pace, on);
            sender.send(())
        });
        entered.recv_timeout(Duration::from_millis(100)).is_ok()
    }

    #[test]
    fn alone_is_alone_on_its_store() {
        assert!(gets_in(Pace::Alone, "etcd"));
        assert!(!gets_in(Pace::Alone, "redis"));
        assert!(!gets_in(Pace::Any, "etcd"));
    }
}
