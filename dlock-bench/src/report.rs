//! The page: results as tables, plots, and sentences that are made from the numbers.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::cli::ReportArgs;
use crate::contestants::DLOCK;
use crate::fault::{Context, Fault, Verdict};
use crate::growth::{self, Series};
use crate::plot;
use crate::print::number;
use crate::sheet::{Point, Row, Sheet};
use crate::targets::{self, Outcome};

/// Where the plots are, beside the page.
const PLOTS: &str = "benchmarks";

const HEAD: &str = "# Benchmarks\n\n\
    Made by `dlock-bench` (`compare` on each store, then `report`). Everything that is compared ran in turns in \
    one run. A *ratio* is dlock's value by the other's within a round; the tables have the median over the \
    rounds. The *floor* is the least that a lock needs on that store, over the same client library: an atomic \
    create, and a delete by the owner. A *bare hand-off* is a write that pushes, from its call to the receiver's \
    having it. What happens within one process (64 tasks, a kept claim) ran on all processors, beside Tokio's \
    mutex on two threads. The client libraries' versions, and those of the other locks, are in `Cargo.lock`. \
    Absolute numbers are those of one machine; ratios carry further.\n";

/// Writes the page and its plots.
pub(crate) fn write(args: &ReportArgs) -> Verdict {
    let mut sheets = Vec::new();
    for file in &args.files {
        sheets.push(read(file)?);
    }
    let folder = args.out.parent().unwrap_or(Path::new("")).join(PLOTS);
    fs::create_dir_all(&folder).doing(folder.display())?;
    let mut page = HEAD.to_owned();
    for sheet in &sheets {
        let (text, plots) = chapter(sheet);
        page.push_str(&text);
        for (file, svg) in plots {
            fs::write(folder.join(&file), svg).doing(file)?;
        }
    }
    fs::write(&args.out, page).doing(args.out.display())
}

fn read(file: &Path) -> Verdict<Sheet> {
    let text = fs::read_to_string(file).doing(file.display())?;
    let sheet: Result<Sheet, _> = serde_json::from_str(&text);
    sheet.map_err(|fault| {
        Fault::new(format!(
            "{}: no results of `compare --json`: {fault}",
            file.display()
        ))
    })
}

/// The text, and the plots with their files' names.
fn chapter(sheet: &Sheet) -> (String, Vec<(String, String)>) {
    let mut page = String::new();
    let about = &sheet.about;
    line(&mut page, &format!("\n## {}\n", sheet.store));
    line(
        &mut page,
        &format!(
            "`{}` of dlock {} ({} rounds, {}), {}; {}.\n",
            about.command, about.version, about.rounds, about.size, about.machine, about.placement
        ),
    );
    target_table(&mut page, sheet);
    let mut plots = Vec::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for point in sheet.points() {
        let group = (point.measure.as_str(), point.setting.as_str());
        if seen.contains(&group) {
            continue;
        }
        seen.push(group);
        let joint = if point.setting.is_empty() { "" } else { ": " };
        line(
            &mut page,
            &format!("\n### {}{joint}{}\n", point.measure, point.setting),
        );
        section(&mut page, sheet, point, &mut plots);
    }
    (page, plots)
}

fn target_table(page: &mut String, sheet: &Sheet) {
    line(page, "| target | measured | |\n| --- | --- | --- |");
    for target in targets::all(sheet) {
        let word = match target.outcome {
            Outcome::Met => "met",
            Outcome::Missed => "**missed**",
            Outcome::Unknown => "–",
        };
        line(
            page,
            &format!("| {} | {} | {word} |", target.what, target.measured),
        );
    }
}

/// One variant of a measure, at all of its points.
fn section(page: &mut String, sheet: &Sheet, like: &Point, plots: &mut Vec<(String, String)>) {
    let alike = |point: &Point| point.measure == like.measure && point.setting == like.setting;
    let rows: Vec<&Row> = sheet.rows.iter().filter(|row| alike(&row.point)).collect();
    let mut metrics: Vec<&str> = Vec::new();
    for row in &rows {
        if !metrics.contains(&row.metric.as_str()) {
            metrics.push(&row.metric);
        }
    }
    for metric in metrics {
        let rows: Vec<&Row> = rows
            .iter()
            .filter(|row| row.metric == metric)
            .copied()
            .collect();
        table(page, sheet, metric, &rows);
        let all = growth::series(sheet, &like.measure, &like.setting, metric);
        if all.iter().any(|series| series.points.len() > 1) {
            grown(page, sheet, like, (metric, &rows[0].unit), &all, plots);
        }
    }
    let missing = sheet.missing.iter().filter(|missing| alike(&missing.point));
    let mut told: Vec<String> = Vec::new();
    for missing in missing {
        let at = &missing.point;
        let place = if at.axis.is_empty() {
            String::new()
        } else {
            format!(", {} {}", at.at, at.axis)
        };
        told.push(format!(
            "- Not measured: {}{place}: {}",
            missing.who, missing.reason
        ));
    }
    line(page, &told.join("\n"));
}

fn table(page: &mut String, sheet: &Sheet, metric: &str, rows: &[&Row]) {
    let Some(first) = rows.first() else { return };
    let axis = &first.point.axis;
    let unit = if first.unit.is_empty() {
        String::new()
    } else {
        format!(" ({})", first.unit)
    };
    line(page, &format!("{metric}{unit}:\n"));
    let (head, rule) = if axis.is_empty() {
        (String::new(), "")
    } else {
        (format!("| {axis} "), "| --- ")
    };
    line(
        page,
        &format!("{head}| | minimum | median | maximum | ratio |"),
    );
    line(page, &format!("{rule}| --- | --- | --- | --- | --- |"));
    for row in rows {
        let at = if axis.is_empty() {
            String::new()
        } else {
            format!("| {} ", row.point.at)
        };
        let ratio = sheet.ratio(row).filter(|_| row.who != DLOCK);
        let values = [row.minimum(), row.median(), row.maximum()].map(number);
        let ratio = ratio.map_or(String::new(), |ratio| number(Some(ratio)));
        line(
            page,
            &format!("{at}| {} | {} | {ratio} |", row.who, values.join(" | ")),
        );
    }
    line(page, "");
}

/// How it grows: a plot, and a line of words for each contestant.
fn grown(
    page: &mut String,
    sheet: &Sheet,
    like: &Point,
    (metric, unit): (&str, &str),
    all: &[Series],
    plots: &mut Vec<(String, String)>,
) {
    let title = format!("{}, {} ({metric})", sheet.store, like.measure);
    if let Some(svg) = plot::svg(&title, &like.axis, unit, all) {
        let file = file_name(&[sheet.store.name(), &like.measure, &like.setting, metric]);
        line(page, &format!("![{title}]({PLOTS}/{file})\n"));
        plots.push((file, svg));
    }
    for series in all {
        if let Some(words) = growth::words(series, &like.axis) {
            line(page, &format!("- {}: {words}.", series.who));
        }
    }
    line(page, "");
}

fn file_name(parts: &[&str]) -> String {
    let words = parts.join(" ").to_lowercase();
    let words: Vec<&str> = words
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    format!("{}.svg", words.join("-"))
}

fn line(page: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(page, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::metric;
    use crate::sheet::About;
    use crate::store::Store;

    #[test]
    fn the_page_says_what_the_numbers_say() {
        let mut sheet = Sheet::new(Store::Etcd, About::default());
        for (at, rate) in [(2, 300.0), (64, 299.0)] {
            let point = Point::new("contended", "separate clients", "contenders", at);
            sheet.put(&point, DLOCK, metric::CHANGES, rate);
            sheet.put(&point, "floor", metric::CHANGES, 400.0);
            sheet.miss(&point, "peer", &Fault::new("it is not installed"));
        }
        let (page, plots) = chapter(&sheet);
        assert!(
            page.contains("- dlock: stays flat, from 2 to 64 contenders"),
            "{page}"
        );
        assert!(
            page.contains("| 2 | floor | 400 | 400 | 400 | 0.750 |"),
            "{page}"
        );
        assert!(page.contains("Not measured: peer, 2 contenders: it is not installed"));
        let file = "etcd-contended-separate-clients-grants-that-change-owner.svg";
        assert_eq!(plots[0].0, file);
        assert!(page.contains(&format!("(benchmarks/{file})")));
    }

    #[test]
    fn a_file_that_is_no_result_is_named() {
        let fault = read(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(fault.contains("Cargo.toml: no results"), "{fault}");
    }
}
