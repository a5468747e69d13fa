//! Which cases run at the same time, in one process: see [`Pace`].

use std::sync::{Condvar, Mutex, PoisonError};

use crate::case::Pace;

/// Lets cases of one pace at a time run side by side, up to a number for each pace.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inside: Mutex<Option<Inside>>,
    left: Condvar,
}

#[derive(Debug)]
struct Inside {
    pace: Pace,
    count: usize,
}

/// A place inside. Dropping it leaves.
pub(crate) struct Pass<'a>(&'a Gate);

/// How many cases of this pace run side by side.
pub(crate) fn at_once(pace: Pace) -> usize {
    match pace {
        Pace::Any => 6,
        Pace::Timed => 4,
        Pace::Alone => 1,
    }
}

impl Gate {
    /// Waits for a place.
    pub(crate) fn enter(&self, pace: Pace) -> Pass<'_> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &mut *inside {
                None => {
                    *inside = Some(Inside { pace, count: 1 });
                    return Pass(self);
                }
                Some(others) if others.pace == pace && others.count < at_once(pace) => {
                    others.count += 1;
                    return Pass(self);
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

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut inside = self.0.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(others) = &mut *inside {
            others.count -= 1;
            if others.count == 0 {
                *inside = None;
            }
        }
        self.0.left.notify_all();
    }
}
