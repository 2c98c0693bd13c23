//! The fixed part of a QR code: which modules are dark in every code of a version.
//!
//! Source: ISO/IEC 18004, "finder pattern", "timing pattern" and "alignment patterns".

use super::transform::Point;

/// A module whose colour is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) column: usize,
    pub(super) row: usize,
    pub(super) dark: bool,
}

/// Modules on each side.
pub(super) fn size(version: u8) -> usize {
    17 + 4 * usize::from(version)
}

/// Center of the alignment pattern at the lower right, for versions from 2.
pub(super) fn alignment(version: u8) -> Point {
    let center = size(version) as f64 - 6.5;
    (center, center)
}

/// Finder patterns with their light border, timing patterns and alignment patterns.
pub(super) fn fixed(version: u8) -> Vec<Module> {
    let size = size(version);
    let mut modules = corners(version, 1);
    modules.extend(timing(version));
    let lines = alignment_lines(version);
    for &center_row in &lines {
        for &center_column in &lines {
            // Where a finder pattern is there is no alignment pattern.
            let near = |center: usize| center == 6;
            let far = |center: usize| center == size - 7;
            if near(center_row) && (near(center_column) || far(center_column))
                || far(center_row) && near(center_column)
            {
                continue;
            }
            for row in center_row - 2..=center_row + 2 {
                for column in center_column - 2..=center_column + 2 {
                    let away = column.abs_diff(center_column).max(row.abs_diff(center_row));
                    modules.push(Module { column, row, dark: away != 1 });
                }
            }
        }
    }
    modules
}

/// The finder patterns alone.
pub(super) fn finders(version: u8) -> Vec<Module> {
    corners(version, 0)
}

/// The finder patterns with a `border` of light modules, as far as it lies in the grid.
fn corners(version: u8, border: usize) -> Vec<Module> {
    let size = size(version);
    let mut modules = Vec::new();
    for (left, top) in [(0, 0), (size - 7, 0), (0, size - 7)] {
        for row in top.saturating_sub(border)..(top + 7 + border).min(size) {
            for column in left.saturating_sub(border)..(left + 7 + border).min(size) {
                let away = column.abs_diff(left + 3).max(row.abs_diff(top + 3));
                modules.push(Module { column, row, dark: away < 2 || away == 3 });
            }
        }
    }
    modules
}

/// The timing patterns: two lines of alternating modules between the finder patterns.
pub(super) fn timing(version: u8) -> Vec<Module> {
    let line = 8..size(version) - 8;
    line.flat_map(|at| {
        let dark = at % 2 == 0;
        [Module { column: at, row: 6, dark }, Module { column: 6, row: at, dark }]
    })
    .collect()
}

/// Rows, and likewise columns, with centers of alignment patterns.
fn alignment_lines(version: u8) -> Vec<usize> {
    let number = usize::from(version);
    if number < 2 {
        return Vec::new();
    }
    let count = number / 7 + 2;
    // The table of the standard follows this rule, with one exception.
    let step = if number == 32 { 26 } else { (number * 4 + count * 2 + 1) / (count * 2 - 2) * 2 };
    let last = size(version) - 7;
    std::iter::once(6).chain((0..count - 1).rev().map(|index| last - index * step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_patterns_stand_where_the_standard_puts_them() {
        #[track_caller]
        fn check(version: u8, want: &[usize]) {
            assert_eq!(alignment_lines(version), want, "version {version}");
        }
        check(1, &[]);
        check(2, &[6, 18]);
        check(6, &[6, 34]);
        check(7, &[6, 22, 38]);
        check(15, &[6, 26, 48, 70]);
        check(22, &[6, 26, 50, 74, 98]);
        check(32, &[6, 34, 60, 86, 112, 138]);
        check(36, &[6, 24, 50, 76, 102, 128, 154]);
        check(39, &[6, 26, 54, 82, 110, 138, 166]);
        check(40, &[6, 30, 58, 86, 114, 142, 170]);
    }

    #[test]
    fn fixed_modules_lie_in_the_grid_and_never_contradict_each_other() {
        for version in 1..=40 {
            let size = size(version);
            let mut colours = vec![None; size * size];
            for Module { column, row, dark } in fixed(version) {
                assert!(column < size && row < size);
                let known = colours[row * size + column].replace(dark);
                assert!(known.is_none_or(|known| known == dark), "version {version}: {column} {row}");
            }
        }
    }
}
