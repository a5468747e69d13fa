//! Statistics: small, pure, and tested.

/// The middle value; between two, their mean. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The smallest value that at least this part of all are not above (the nearest rank).
pub(crate) fn percentile(values: &[f64], part: f64) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Jain's index of fairness: 1 when all have the same, 1/n when one has it all (R. Jain, D. Chiu, W. Hawe:
/// "A quantitative measure of fairness", DEC TR-301, 1984). `None` when nobody has anything.
pub(crate) fn jain(shares: &[u64]) -> Option<f64> {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    (squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

/// How many pairs stand the other way round than they should: of 0, 1, 2, … there are none.
pub(crate) fn inversions(order: &[usize]) -> usize {
    let earlier_and_greater = |(place, value): (usize, &usize)| {
        let before = order[..place].iter();
        before.filter(|earlier| *earlier > value).count()
    };
    order.iter().enumerate().map(earlier_and_greater).sum()
}

/// The exponent by which y grows with x: 0 is flat, 1 in proportion, 2 with the square. The slope of the line
/// of least squares through the points' logarithms. `None` with fewer than two different x, or with values
/// that have no logarithm.
pub(crate) fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    if points.iter().any(|(x, y)| *x <= 0.0 || *y <= 0.0) {
        return None;
    }
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logs.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let both: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 1e-9).then(|| both / spread)
}

/// The median of the quotients of two series, round by round: what disturbs one round disturbs both.
pub(crate) fn median_ratio(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Option<f64> {
    let pairs = ours.iter().zip(theirs);
    let ratios: Vec<f64> = pairs
        .filter_map(|(our, their)| Some((*our)? / (*their)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    median(&ratios)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(seen: Option<f64>, wanted: f64) -> bool {
        seen.is_some_and(|seen| (seen - wanted).abs() < 1e-9)
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 10.0, 2.0]), Some(3.0));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.5), Some(50.0));
        assert_eq!(percentile(&hundred, 0.99), Some(99.0));
        assert_eq!(percentile(&hundred, 1.0), Some(100.0));
        assert_eq!(percentile(&[7.0, 8.0], 0.99), Some(8.0));
        assert_eq!(percentile(&[7.0, 8.0], 0.0), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn jains_index_goes_from_one_for_all_to_even() {
        assert!(close(jain(&[5, 5, 5, 5]), 1.0));
        assert!(close(jain(&[9, 0, 0, 0]), 0.25));
        assert!(close(jain(&[1, 2, 3]), 36.0 / 42.0));
        assert_eq!(jain(&[0, 0]), None);
        assert_eq!(jain(&[]), None);
    }

    #[test]
    fn inversions_count_pairs() {
        assert_eq!(inversions(&[0, 1, 2, 3]), 0);
        assert_eq!(inversions(&[1, 0, 2, 3]), 1);
        assert_eq!(inversions(&[3, 0, 1, 2]), 3);
        assert_eq!(inversions(&[3, 2, 1, 0]), 6);
    }

    #[test]
    fn growth_is_an_exponent() {
        let grown = |power: i32| -> Vec<(f64, f64)> {
            let all = [2.0_f64, 8.0, 64.0, 256.0];
            all.iter().map(|x| (*x, 3.0 * x.powi(power))).collect()
        };
        assert!(close(exponent(&grown(0)), 0.0));
        assert!(close(exponent(&grown(1)), 1.0));
        assert!(close(exponent(&grown(2)), 2.0));
        assert!(close(exponent(&grown(-1)), -1.0));
        assert_eq!(exponent(&[(2.0, 5.0)]), None);
        assert_eq!(exponent(&[(2.0, 5.0), (2.0, 6.0)]), None);
        assert_eq!(exponent(&[(2.0, 0.0), (3.0, 6.0)]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let ours = [Some(2.0), Some(40.0), None, Some(9.0)];
        let theirs = [Some(1.0), Some(10.0), Some(1.0), Some(3.0)];
        assert!(close(median_ratio(&ours, &theirs), 3.0));
        assert_eq!(median_ratio(&ours, &[None, None]), None);
        assert_eq!(median_ratio(&[Some(1.0)], &[Some(0.0)]), None);
    }
}
