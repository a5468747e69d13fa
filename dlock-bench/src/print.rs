//! The results on the terminal.

use crate::contestants::DLOCK;
use crate::sheet::{Point, Row, Sheet};
use crate::targets::{self, Outcome};

pub(crate) fn print(sheet: &Sheet) {
    let about = &sheet.about;
    println!(
        "{}: {} rounds ({}), {}",
        sheet.store, about.rounds, about.size, about.machine
    );
    println!("{}", about.placement);
    for point in sheet.points() {
        println!("\n{}", point.words());
        for metric in sheet.metrics(point) {
            table(sheet, point, metric);
        }
        for missing in sheet
            .missing
            .iter()
            .filter(|missing| missing.point == *point)
        {
            println!("  {:24} not measured: {}", missing.who, missing.reason);
        }
    }
    println!("\ntargets (ratios are dlock's to the other's, in one round)");
    for target in targets::all(sheet) {
        println!(
            "  {:10} {}: {}",
            word(&target.outcome),
            target.what,
            target.measured
        );
    }
}

const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Met => "met",
        Outcome::Missed => "MISSED",
        Outcome::Unknown => "unmeasured",
    }
}

fn table(sheet: &Sheet, point: &Point, metric: &str) {
    let rows: Vec<&Row> = sheet
        .rows
        .iter()
        .filter(|row| row.point == *point && row.metric == metric)
        .collect();
    let unit = rows.first().map_or("", |row| row.unit.as_str());
    let head = if unit.is_empty() {
        metric.to_owned()
    } else {
        format!("{metric} [{unit}]")
    };
    println!(
        "  {head:38} {:>10} {:>10} {:>10} {:>8}",
        "min", "median", "max", "ratio"
    );
    for row in rows {
        let ratio = sheet.ratio(row).filter(|_| row.who != DLOCK);
        println!(
            "    {:36} {:>10} {:>10} {:>10} {:>8}",
            row.who,
            number(row.minimum()),
            number(row.median()),
            number(row.maximum()),
            ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
        );
    }
}

/// Three digits that mean something, or nothing.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_three_digits_that_mean_something() {
        let words = [0.0, 0.1234, 1.234, 12.34, 1234.4].map(|value| number(Some(value)));
        assert_eq!(words, ["0", "0.123", "1.23", "12.3", "1234"]);
        assert_eq!(number(None), "–");
    }
}
