//! Plots as SVG, by hand: lines over two logarithmic axes need no library.

use std::fmt::Write;

use crate::contestants::DLOCK;
use crate::growth::Series;
use crate::print::number;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 220.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Told apart also by those who do not see all colours (Okabe and Ito). The first one is dlock's.
const COLOURS: [&str; 7] = [
    "#d55e00", "#000000", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// A logarithmic axis.
struct Axis {
    least: f64,
    most: f64,
    /// Where `least` and `most` are drawn.
    from: f64,
    to: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Option<Self> {
        let least = values.clone().reduce(f64::min)?;
        let most = values.reduce(f64::max)?;
        Some(Self {
            least: least.log10(),
            most: most.log10().max(least.log10() + 0.3),
            from,
            to,
        })
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.log10() - self.least) / (self.most - self.least);
        self.from + part * (self.to - self.from)
    }

    /// 1, 2 and 5 of each power of ten, as far as they fit; fewer when there are too many.
    fn ticks(&self) -> Vec<f64> {
        let powers = self.least.floor() as i32..=self.most.ceil() as i32;
        let steps: &[f64] = if self.most - self.least > 3.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        powers
            .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
            .filter(|tick| (self.least - 1e-9..=self.most + 1e-9).contains(&tick.log10()))
            .collect()
    }
}

/// A plot of the series; `None` when nothing in them can be drawn on logarithmic axes.
pub(crate) fn svg(title: &str, x: &str, y: &str, all: &[Series]) -> Option<String> {
    let drawn = || {
        let points = all.iter().flat_map(|series| series.points.iter());
        points.filter(|(x, y)| *x > 0.0 && *y > 0.0)
    };
    let across = Axis::of(drawn().map(|(x, _)| *x), LEFT, WIDTH - RIGHT)?;
    let up = Axis::of(drawn().map(|(_, y)| *y), HEIGHT - BOTTOM, TOP)?;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    text(&mut svg, (LEFT, 20.0), "start", title);
    text(
        &mut svg,
        ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0),
        "middle",
        x,
    );
    text(&mut svg, (8.0, TOP - 6.0), "start", y);
    for tick in across.ticks() {
        let at = across.place(tick);
        line(&mut svg, (at, TOP), (at, HEIGHT - BOTTOM));
        text(
            &mut svg,
            (at, HEIGHT - BOTTOM + 16.0),
            "middle",
            &number(Some(tick)),
        );
    }
    for tick in up.ticks() {
        let at = up.place(tick);
        line(&mut svg, (LEFT, at), (WIDTH - RIGHT, at));
        text(&mut svg, (LEFT - 6.0, at + 4.0), "end", &number(Some(tick)));
    }
    // dlock last, so that nothing lies over it.
    let mut order: Vec<(usize, &Series)> = all.iter().enumerate().collect();
    order.sort_by_key(|(_, series)| series.who == DLOCK);
    for (place, series) in order {
        draw(
            &mut svg,
            place,
            series,
            &across,
            &up,
            colour(place, &series.who),
        );
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn colour(place: usize, who: &str) -> &'static str {
    if who == DLOCK {
        COLOURS[0]
    } else {
        COLOURS[1 + place % (COLOURS.len() - 1)]
    }
}

fn draw(svg: &mut String, place: usize, series: &Series, across: &Axis, up: &Axis, colour: &str) {
    let points = series.points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let places: Vec<(f64, f64)> = points
        .map(|(x, y)| (across.place(*x), up.place(*y)))
        .collect();
    let path: Vec<String> = places
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let width = if series.who == DLOCK { 3 } else { 1 };
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
        path.join(" ")
    );
    for (x, y) in &places {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
    }
    let (x, y) = (WIDTH - RIGHT + 16.0, TOP + 12.0 + 20.0 * place as f64);
    let _ = writeln!(
        svg,
        "<circle cx=\"{x}\" cy=\"{:.1}\" r=\"5\" fill=\"{colour}\"/>",
        y - 4.0
    );
    text(svg, (x + 12.0, y), "start", &series.who);
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_every_point_that_can_be_drawn() {
        let series = |who: &str, points: &[(f64, f64)]| Series {
            who: who.to_owned(),
            points: points.to_vec(),
        };
        let all = [
            series(DLOCK, &[(2.0, 100.0), (64.0, 90.0)]),
            series("a < b", &[(2.0, 0.0), (64.0, 5.0)]),
        ];
        let svg = svg("rate", "contenders", "1/s", &all).unwrap();
        assert_eq!(svg.matches("r=\"3\"").count(), 3, "zero has no logarithm");
        assert!(svg.contains("a &lt; b"));
        assert!(super::svg("nothing", "x", "y", &[series("x", &[(1.0, 0.0)])]).is_none());
    }

    #[test]
    fn an_axis_is_logarithmic() {
        let axis = Axis::of([1.0, 100.0].into_iter(), 0.0, 200.0).unwrap();
        assert!((axis.place(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }
}
