//! A part of a history, drawn: a lane for each of those who took part, a bar for each hold, coloured by
//! mode, a thin line before it while it was waited for, and a band for each fault.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use dlock_core::Mode;

use crate::check::Hold;

/// Something that was broken for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// In words.
    pub what: String,
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

const WIDTH: f64 = 1200.0;
/// For the names of the lanes.
const MARGIN: f64 = 130.0;
const LANE: f64 = 26.0;
const BAR: f64 = 16.0;
const TEXT: &str = "font-family=\"monospace\" font-size=\"11\"";

/// In the order of [`Mode::index`].
const COLOURS: [&str; 6] = [
    "#9e9e9e", "#81c784", "#ffb74d", "#4fc3f7", "#ba68c8", "#e57373",
];

/// Draws these holds and faults as SVG, with the title above.
#[must_use]
pub fn svg(title: &str, holds: &[Hold], bands: &[Band]) -> String {
    let began = |hold: &Hold| hold.asked.unwrap_or(hold.from);
    let starts = holds.iter().map(began);
    let ends = holds.iter().map(|hold| hold.until);
    let (start, end) = (
        starts.min().unwrap_or_default(),
        ends.max().unwrap_or_default(),
    );
    let span = end.saturating_sub(start).as_secs_f64().max(1e-6);
    let x = |at: Duration| {
        let at = at.clamp(start, end).saturating_sub(start);
        MARGIN + at.as_secs_f64() / span * (WIDTH - MARGIN - 10.0)
    };
    let mut lanes: BTreeMap<&str, usize> = BTreeMap::new();
    for hold in holds {
        lanes.entry(&hold.who).or_default();
    }
    for (place, lane) in lanes.values_mut().enumerate() {
        *lane = place;
    }
    let shown: Vec<&Band> = bands
        .iter()
        .filter(|band| band.from <= end && band.until >= start)
        .collect();
    // The title, the legend, the axis, a line for each fault, and the lanes.
    let top = 56.0 + 16.0 * shown.len() as f64;
    let bottom = top + LANE * lanes.len() as f64;
    let mut svg = String::new();
    let height = bottom + 24.0;
    // Writing to a text cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" {TEXT}>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\">{}</text>",
        escaped(title)
    );
    for (place, mode) in Mode::ALL.into_iter().enumerate() {
        let (at, colour) = (MARGIN + 60.0 * place as f64, COLOURS[mode.index()]);
        let _ = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"26\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"36\">{mode}</text>",
            at + 16.0
        );
    }
    for (place, band) in shown.iter().enumerate() {
        let (from, until) = (x(band.from), x(band.until).max(x(band.from) + 1.0));
        let y = 56.0 + 16.0 * place as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#f44336\" \
             fill-opacity=\"0.12\"/><text x=\"{from:.1}\" y=\"{y}\" fill=\"#b71c1c\">{}</text>",
            y - 10.0,
            until - from,
            bottom - y + 10.0,
            escaped(&band.what)
        );
    }
    for (who, lane) in &lanes {
        let y = top + LANE * (*lane as f64 + 0.5);
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{:.1}\">{}</text><line x1=\"{MARGIN}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" \
             y2=\"{y:.1}\" stroke=\"#eeeeee\"/>",
            y + 4.0,
            escaped(who)
        );
    }
    for hold in holds {
        let lane = lanes.get(hold.who.as_str()).copied().unwrap_or_default();
        let y = top + LANE * (lane as f64 + 0.5);
        let (asked, from, until) = (x(began(hold)), x(hold.from), x(hold.until));
        let colour = COLOURS[hold.mode.index()];
        let _ = writeln!(
            svg,
            "<g><title>{}</title><line x1=\"{asked:.1}\" x2=\"{from:.1}\" y1=\"{y:.1}\" \
             y2=\"{y:.1}\" stroke=\"{colour}\"/><rect x=\"{from:.1}\" y=\"{:.1}\" \
             width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\" stroke=\"#424242\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escaped(&hold.to_string()),
            y - BAR / 2.0,
            (until - from).max(1.0),
            from + 2.0,
            y + 4.0,
            hold.mode
        );
    }
    for tick in 0..=6 {
        let at = start + (end.saturating_sub(start)) * tick / 6;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.3} s</text>",
            x(at).clamp(MARGIN, WIDTH - 40.0),
            bottom + 14.0,
            at.as_secs_f64()
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use dlock_core::FencingToken;

    use super::*;

    #[test]
    fn it_draws_every_hold_and_the_faults_of_that_time() {
        let hold = |who: &str, from, until| Hold {
            who: who.into(),
            lock: "l".into(),
            mode: Mode::Exclusive,
            token: FencingToken::from_order(1),
            asked: None,
            from: Duration::from_secs(from),
            until: Duration::from_secs(until),
        };
        let band = |what: &str, from| Band {
            what: what.into(),
            from: Duration::from_secs(from),
            until: Duration::from_secs(from + 1),
        };
        let holds = [hold("p1 & co", 10, 20), hold("p2", 15, 30)];
        let drawn = svg(
            "two <holders>",
            &holds,
            &[band("cut", 12), band("later", 90)],
        );
        assert_eq!(drawn.matches("<g>").count(), 2);
        assert!(drawn.contains("two &lt;holders&gt;") && drawn.contains("p1 &amp; co"));
        assert!(drawn.contains("cut") && !drawn.contains("later"));
        assert!(!drawn.contains("NaN") && drawn.ends_with("</svg>\n"));
    }

    #[test]
    fn nothing_is_drawn_too() {
        assert!(!svg("", &[], &[]).contains("NaN"));
    }
}
