//! What is made of the figures of several rounds: their middle, their spread, how they compare, whether a target is met.

use serde::Serialize;

/// Where the rounds of one measurement lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub lowest: f64,
    /// The greatest.
    pub highest: f64,
    /// How many there are.
    pub rounds: usize,
}

impl Spread {
    /// Of these.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let edge = |start: f64, pick: fn(f64, f64) -> f64| values.iter().copied().fold(start, pick);
        Self {
            median: median(values),
            lowest: edge(f64::INFINITY, f64::min),
            highest: edge(f64::NEG_INFINITY, f64::max),
            rounds: values.len(),
        }
    }
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

/// Whether a target is met, and by which factor it is met or missed; from 1 upwards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether it is met.
    pub met: bool,
    /// By how much.
    pub factor: f64,
}

impl Target {
    /// Whether a value meets it.
    #[must_use]
    pub fn judge(self, value: f64) -> Verdict {
        // Not a number is not met.
        let (met, room) = match self {
            Self::AtMost(limit) => (value <= limit, limit / value),
            Self::AtLeast(limit) => (value >= limit, value / limit),
        };
        Verdict { met, factor: if met { room } else { 1.0 / room } }
    }
}

/// The middle value; of an even number the mean of the two in the middle.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

/// The value that so much of the sorted values lies below.
#[must_use]
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The median of the ratios round by round, so that what disturbed both cancels out.
#[must_use]
pub fn ratio(values: &[f64], beside: &[f64]) -> f64 {
    let ratios: Vec<f64> = values.iter().zip(beside).map(|(value, other)| value / other).collect();
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_spread_holds_all_rounds() {
        let spread = Spread::of(&[5.0, 1.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.0, lowest: 1.0, highest: 5.0, rounds: 3 });
    }

    #[test]
    fn quantiles_stay_inside_the_values() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| quantile(&values, part)), [1.0, 3.0, 4.0, 4.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_slow_round_that_hits_both_does_not_move_the_ratio() {
        assert_eq!(ratio(&[1.0, 10.0, 1.0], &[2.0, 20.0, 2.0]), 0.5);
    }

    #[track_caller]
    fn check(target: Target, value: f64, met: bool, factor: f64) {
        assert_eq!(target.judge(value), Verdict { met, factor }, "{target:?} with {value}");
    }

    #[test]
    fn a_verdict_says_by_which_factor() {
        check(Target::AtMost(2.0), 1.0, true, 2.0);
        check(Target::AtMost(2.0), 2.0, true, 1.0);
        check(Target::AtMost(2.0), 3.0, false, 1.5);
        assert!(Target::AtMost(0.0).judge(0.0).met);
        check(Target::AtLeast(30.0), 60.0, true, 2.0);
        check(Target::AtLeast(30.0), 10.0, false, 3.0);
        assert!(!Target::AtLeast(1.0).judge(f64::NAN).met);
    }
}
