//! Says on the error output what is being done: on a terminal, in one line that changes.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

use crate::sheet::Point;

/// The display.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    pub(crate) rounds: usize,
    /// What a file or a pipe was last told: a line for each measure, not for each step.
    last: String,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            rounds: 0,
            last: String::new(),
        }
    }
}

impl Progress {
    pub(crate) fn show(&mut self, round: usize, point: &Point, who: &str) {
        let head = format!(
            "{:4} s  round {}/{}",
            self.begun.elapsed().as_secs(),
            round + 1,
            self.rounds
        );
        let mut out = stderr();
        // Nothing depends on the display.
        let _ = if out.is_terminal() {
            let line = format!("{head}  {}: {who}", point.words());
            write!(
                out,
                "\r\x1b[K{}",
                line.chars().take(100).collect::<String>()
            )
        } else {
            let step = format!("round {round} {}", point.measure);
            if step == self.last {
                return;
            }
            self.last = step;
            writeln!(out, "{head}  {}", point.measure)
        };
        let _ = out.flush();
    }

    pub(crate) fn done(&self) {
        if stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
