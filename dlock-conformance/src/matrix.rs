//! The support matrix, as Markdown: what each backend says that it can do, and what the suite needs
//! to show it.

use std::fmt::Write as _;
use std::time::Duration;

use dlock_core::{Capabilities, Mode, Reach};

use crate::target::{Need, Target};
use crate::{Verdict, stores};

/// What is known of one backend.
#[derive(Clone, Debug)]
pub struct Row {
    /// The store that the suite runs against: `redis-8.0`.
    pub name: String,
    /// What its backend says of itself.
    pub capabilities: Capabilities,
    /// What the suite cannot show there, and why.
    pub lacks: Vec<String>,
}

/// Asks every store that the suite can start, one after the other.
///
/// # Errors
///
/// A [`Failure`](crate::Failure) when one of them cannot be started or reached.
pub async fn ask_all() -> Verdict<Vec<Row>> {
    let mut rows = Vec::new();
    for name in stores::BACKENDS {
        let target = stores::named(name)?;
        let row = ask(target.as_ref()).await;
        target.stop().await?;
        rows.push(row?);
    }
    Ok(rows)
}

async fn ask(target: &dyn Target) -> Verdict<Row> {
    let mut lacks: Vec<String> = (Need::ALL.into_iter())
        .filter_map(|need| target.lacks(need))
        .collect();
    // One reason may do for several needs.
    lacks.dedup();
    Ok(Row {
        name: target.name().to_owned(),
        capabilities: target.link().await?.backend.capabilities(),
        lacks,
    })
}

/// The matrix of these backends: one row for each.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    const HEAD: [&str; 7] = [
        "store",
        "modes",
        "shared by",
        "a grant is kept by",
        "smallest TTL",
        "a crashed holder's lock is free within",
        "the suite cannot show there",
    ];
    let mut text = String::new();
    let mut line = |cells: &[&str]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    line(&HEAD);
    line(&HEAD.map(|_| "---"));
    for row in rows {
        let can = &row.capabilities;
        line(&[
            &row.name,
            &modes(can.modes),
            match can.reach {
                Reach::Process => "the tasks of one process",
                Reach::Network => "all processes that reach it",
            },
            &can.durability,
            &time(can.min_ttl),
            &format!("TTL + {}", time(can.slack)),
            &match &row.lacks[..] {
                [] => "—".to_owned(),
                lacks => lacks.join("; "),
            },
        ]);
    }
    text
}

fn modes(modes: &[Mode]) -> String {
    if modes == Mode::ALL {
        return "all six".to_owned();
    }
    let codes: Vec<&str> = modes.iter().map(|mode| mode.code()).collect();
    codes.join(", ")
}

fn time(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else if time.as_millis().is_multiple_of(100) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} ms", time.as_millis())
    }
}
