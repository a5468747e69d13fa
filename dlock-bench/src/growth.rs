//! How a quantity grows, in words made from the numbers.

use crate::print::number;
use crate::sheet::{Row, Sheet};
use crate::stats;

/// Below this exponent a quantity is called flat.
const FLAT: f64 = 0.1;

/// One contestant's quantity along an axis.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) who: String,
    /// Where, and the median there.
    pub(crate) points: Vec<(f64, f64)>,
}

/// All contestants' series of one quantity of one measure.
pub(crate) fn series(sheet: &Sheet, measure: &str, setting: &str, metric: &str) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    let wanted = |row: &&Row| {
        let point = &row.point;
        point.measure == measure && point.setting == setting && row.metric == metric
    };
    for row in sheet.rows.iter().filter(wanted) {
        let Some(median) = row.median() else { continue };
        let point = (row.point.at as f64, median);
        match all.iter_mut().find(|series| series.who == row.who) {
            Some(series) => series.points.push(point),
            None => all.push(Series {
                who: row.who.clone(),
                points: vec![point],
            }),
        }
    }
    for series in &mut all {
        series.points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    }
    all
}

/// What becomes of it as the axis grows; `None` of fewer than two points.
pub(crate) fn words(series: &Series, axis: &str) -> Option<String> {
    let (first, last) = (series.points.first()?, series.points.last()?);
    if first.0 >= last.0 {
        return None;
    }
    let span = format!("from {} to {} {axis}", first.0, last.0);
    let change = format!("{} → {}", number(Some(first.1)), number(Some(last.1)));
    let Some(exponent) = stats::exponent(&series.points) else {
        let all_zero = series.points.iter().all(|(_, value)| *value == 0.0);
        let how = if all_zero {
            "is always 0"
        } else {
            "reaches 0, so that no growth can be told"
        };
        return Some(format!("{how}, {span} ({change})"));
    };
    Some(format!(
        "{}, {span} ({change}, ×{}, exponent {exponent:.2})",
        kind(exponent),
        number(Some(last.1 / first.1)),
    ))
}

fn kind(exponent: f64) -> &'static str {
    match exponent {
        e if e.abs() < FLAT => "stays flat",
        e if e < -0.9 => "falls in proportion or faster",
        e if e < 0.0 => "falls, more slowly than the number grows",
        e if e < 0.9 => "grows, more slowly than the number",
        e if e < 1.1 => "grows in proportion",
        _ => "grows faster than the number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(points: &[(f64, f64)]) -> Option<String> {
        let series = Series {
            who: "x".to_owned(),
            points: points.to_vec(),
        };
        words(&series, "contenders")
    }

    #[test]
    fn the_words_follow_the_numbers() {
        let flat = told(&[(2.0, 100.0), (8.0, 103.0), (64.0, 98.0)]).unwrap();
        assert!(
            flat.starts_with("stays flat, from 2 to 64 contenders (100 → 98.0"),
            "{flat}"
        );
        let linear = told(&[(1.0, 3.0), (10.0, 30.0), (100.0, 300.0)]).unwrap();
        assert!(linear.starts_with("grows in proportion"), "{linear}");
        let square = told(&[(1.0, 3.0), (10.0, 300.0)]).unwrap();
        assert!(square.starts_with("grows faster"), "{square}");
        let root = told(&[(1.0, 1.0), (100.0, 10.0)]).unwrap();
        assert!(root.starts_with("grows, more slowly"), "{root}");
        let falling = told(&[(1.0, 10.0), (100.0, 1.0)]).unwrap();
        assert!(falling.starts_with("falls, more slowly"), "{falling}");
        let zero = told(&[(1.0, 0.0), (100.0, 0.0)]).unwrap();
        assert!(zero.starts_with("is always 0"), "{zero}");
        assert_eq!(told(&[(1.0, 10.0)]), None);
    }
}
