//! Finder patterns: the three squares in the corners of a code, dark, light and dark as 1 : 1 : 3 : 1 : 1.
//!
//! A line through the center of the pattern shows these proportions at any angle, so rows are scanned for them and
//! what is found is checked along the column, the row and a diagonal.

use super::{Bitmap, transform::Point};

/// Finder patterns that are kept while scanning; bounds the time that a picture full of them costs.
const MAX_FOUND: usize = 256;

/// Lengths of five runs, dark at both ends, in pixels.
type Runs = [u32; 5];

const PROPORTIONS: [f64; 5] = [1.0, 1.0, 3.0, 1.0, 1.0];

/// The center of a finder pattern.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Finder {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Size of a module in pixels, along row and column.
    pub(super) module: f64,
    /// Rows of pixels in which it was seen.
    pub(super) rows: u32,
}

impl Finder {
    pub(super) fn center(&self) -> Point {
        (self.x, self.y)
    }

    pub(super) fn distance(&self, other: &Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    /// Takes another sight of the same pattern into the means.
    fn merge(&mut self, other: &Self) {
        let (old, all) = (f64::from(self.rows), f64::from(self.rows + 1));
        self.x = (self.x * old + other.x) / all;
        self.y = (self.y * old + other.y) / all;
        self.module = (self.module * old + other.module) / all;
        self.rows += 1;
    }

    fn is_near(&self, other: &Self) -> bool {
        let reach = 1.5 * self.module;
        (self.x - other.x).abs() < reach && (self.y - other.y).abs() < reach
    }
}

/// All finder patterns, in the order of their first row.
pub(super) fn find(bitmap: &Bitmap) -> Vec<Finder> {
    let mut found: Vec<Finder> = Vec::new();
    for (y, row) in bitmap.rows().enumerate() {
        let mut runs = [0; 5];
        let mut start = 0;
        for run in row.chunk_by(|a, b| a == b) {
            runs.rotate_left(1);
            runs[4] = run.len() as u32;
            let [.., core, inner, _] = runs;
            if run[0] && has_proportions(&runs, 0.5) {
                let middle = start as i64 - i64::from(inner) - i64::from(core / 2) - 1;
                if let Some(finder) = check(bitmap, middle, y as i64, module(&runs)) {
                    match found.iter().position(|known| known.is_near(&finder)) {
                        Some(index) => found[index].merge(&finder),
                        None if found.len() < MAX_FOUND => found.push(finder),
                        None => {}
                    }
                }
            }
            start += run.len();
        }
    }
    found
}

/// Looks for the proportions down, across and along a diagonal, and measures the center.
fn check(bitmap: &Bitmap, x: i64, y: i64, expected: f64) -> Option<Finder> {
    let longest = (8.0 * expected) as u32 + 2;
    let (down, y_offset) = cross(bitmap, (x, y), (0, 1), longest)?;
    let center_y = y as f64 + y_offset;
    let (across, x_offset) = cross(bitmap, (x, center_y.round() as i64), (1, 0), longest)?;
    let center_x = x as f64 + x_offset;
    let (high, wide) = (module(&down), module(&across));
    if !has_proportions(&down, 0.5) || !has_proportions(&across, 0.5) || high.max(wide) > 2.5 * high.min(wide)
    {
        return None;
    }
    let middle = (center_x.round() as i64, center_y.round() as i64);
    let diagonal =
        |step| cross(bitmap, middle, step, longest).is_some_and(|(runs, _)| has_proportions(&runs, 0.75));
    if !diagonal((1, 1)) && !diagonal((1, -1)) {
        return None;
    }
    // The middle of a pixel is half a pixel from its corner.
    Some(Finder { x: center_x + 0.5, y: center_y + 0.5, module: (high + wide) / 2.0, rows: 1 })
}

/// Runs through a dark pixel in both directions of `step`, and how far the middle of the core is from it; none when
/// the pattern leaves the picture or a run is longer than `longest`.
fn cross(bitmap: &Bitmap, from: (i64, i64), step: (i64, i64), longest: u32) -> Option<(Runs, f64)> {
    let half = |sign: i64| {
        // What follows the pixel: the rest of the core, the light ring, the dark ring.
        let mut runs = [0u32; 3];
        let (mut x, mut y) = from;
        for (run, dark) in runs.iter_mut().zip([true, false, true]) {
            while bitmap.pixel(x + sign * step.0, y + sign * step.1) == Some(dark) {
                (x, y) = (x + sign * step.0, y + sign * step.1);
                *run += 1;
                if *run > longest {
                    return None;
                }
            }
        }
        Some(runs)
    };
    if bitmap.pixel(from.0, from.1) != Some(true) {
        return None;
    }
    let (ahead, behind) = (half(1)?, half(-1)?);
    let runs = [behind[2], behind[1], behind[0] + 1 + ahead[0], ahead[1], ahead[2]];
    Some((runs, (f64::from(ahead[0]) - f64::from(behind[0])) / 2.0))
}

fn module(runs: &Runs) -> f64 {
    f64::from(runs.iter().sum::<u32>()) / 7.0
}

/// Whether each run is as long as it must be: `tolerance` modules and half a pixel off at most, the core twice that.
fn has_proportions(runs: &Runs, tolerance: f64) -> bool {
    let module = module(runs);
    let allowed = module * tolerance + (0.25 * module).min(0.5);
    let fits = |(&run, proportion): (&u32, f64)| {
        let factor = if proportion > 1.0 { 2.0 } else { 1.0 };
        (f64::from(run) - proportion * module).abs() < allowed * factor
    };
    module >= 1.0 && !runs.contains(&0) && runs.iter().zip(PROPORTIONS).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_runs(runs: Runs, want: bool) {
        assert_eq!(has_proportions(&runs, 0.5), want, "{runs:?}");
    }

    #[test]
    fn proportions_bear_a_pixel_of_error() {
        check_runs([1, 1, 3, 1, 1], true);
        check_runs([4, 4, 12, 4, 4], true);
        check_runs([3, 5, 13, 4, 5], true);
        check_runs([2, 1, 3, 1, 2], true);
        check_runs([4, 4, 4, 4, 4], false);
        check_runs([4, 4, 24, 4, 4], false);
        check_runs([0, 1, 3, 1, 1], false);
        check_runs([1, 1, 2, 1, 1], false);
    }

    /// A finder pattern with a quiet zone, drawn with `scale` pixels per module at `(left, top)`.
    fn draw(luma: &mut [u8], width: usize, left: usize, top: usize, scale: usize) {
        for y in 0..7 * scale {
            for x in 0..7 * scale {
                let away = (x / scale).abs_diff(3).max((y / scale).abs_diff(3));
                if away != 2 {
                    luma[(top + y) * width + left + x] = 0;
                }
            }
        }
    }

    #[test]
    fn center_and_size_are_measured() {
        let (width, height) = (200, 120);
        let mut luma = vec![255; width * height];
        draw(&mut luma, width, 20, 30, 1);
        draw(&mut luma, width, 60, 10, 3);
        draw(&mut luma, width, 120, 40, 8);
        let found = find(&Bitmap::new(&luma, width, height, 40));
        let centers: Vec<_> = found.iter().map(|finder| (finder.x, finder.y, finder.module)).collect();
        assert_eq!(centers, [(70.5, 20.5, 3.0), (23.5, 33.5, 1.0), (148.0, 68.0, 8.0)]);
    }

    #[test]
    fn pattern_at_the_very_edge_is_found_and_a_cut_one_is_not() {
        let mut luma = vec![255; 40 * 40];
        draw(&mut luma, 40, 0, 0, 2);
        assert_eq!(find(&Bitmap::new(&luma, 40, 40, 20)).len(), 1);
        let cut: Vec<u8> = luma.chunks(40).flat_map(|row| row[4..].to_vec()).collect();
        assert_eq!(find(&Bitmap::new(&cut, 36, 40, 20)), []);
    }

    #[test]
    fn pictures_full_of_patterns_give_a_bounded_number() {
        let (width, height) = (400, 400);
        let mut luma = vec![255; width * height];
        for y in (0..height - 9).step_by(9) {
            for x in (0..width - 9).step_by(9) {
                draw(&mut luma, width, x, y, 1);
            }
        }
        assert_eq!(find(&Bitmap::new(&luma, width, height, 50)).len(), MAX_FOUND);
    }
}
