//! A flat square seen from any side: the projective map between two quadrilaterals.
//!
//! Source: Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, section 2.2.3.

/// A place as `(x, y)` or `(column, row)`.
pub(crate) type Point = (f64, f64);

/// Nothing that is looked at lies further out; keeps what is computed from it finite and in the range of `i32`.
const FAR: f64 = 1e6;

/// A matrix of 3 x 3 for homogeneous coordinates, row by row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Transform([f64; 9]);

impl Transform {
    /// Maps four points to four others; both sets in the same order around. None when three are on a line.
    pub(super) fn between(from: &[Point; 4], to: &[Point; 4]) -> Option<Self> {
        Some(Self::from_unit_square(to)?.after(&Self::from_unit_square(from)?.adjugate()))
    }

    /// Where a point goes; none when it is out of sight.
    pub(super) fn map(&self, x: f64, y: f64) -> Option<Point> {
        let [a, b, c, d, e, f, g, h, i] = self.0;
        let depth = g * x + h * y + i;
        let point = ((a * x + b * y + c) / depth, (d * x + e * y + f) / depth);
        // Also refuses NaN and infinity, from a depth of zero.
        (point.0.abs() < FAR && point.1.abs() < FAR).then_some(point)
    }

    fn from_unit_square(&[p0, p1, p2, p3]: &[Point; 4]) -> Option<Self> {
        let (dx1, dx2, dx3) = (p1.0 - p2.0, p3.0 - p2.0, p0.0 - p1.0 + p2.0 - p3.0);
        let (dy1, dy2, dy3) = (p1.1 - p2.1, p3.1 - p2.1, p0.1 - p1.1 + p2.1 - p3.1);
        let determinant = dx1 * dy2 - dx2 * dy1;
        if determinant.abs() < 1e-9 {
            return None;
        }
        let g = (dx3 * dy2 - dx2 * dy3) / determinant;
        let h = (dx1 * dy3 - dx3 * dy1) / determinant;
        let (column1, column2) = (
            (p1.0 - p0.0 + g * p1.0, p1.1 - p0.1 + g * p1.1),
            (p3.0 - p0.0 + h * p3.0, p3.1 - p0.1 + h * p3.1),
        );
        Some(Self([column1.0, column2.0, p0.0, column1.1, column2.1, p0.1, g, h, 1.0]))
    }

    /// The inverse up to a factor, which homogeneous coordinates do not notice.
    fn adjugate(&self) -> Self {
        let [a, b, c, d, e, f, g, h, i] = self.0;
        Self([
            e * i - f * h,
            c * h - b * i,
            b * f - c * e,
            f * g - d * i,
            a * i - c * g,
            c * d - a * f,
            d * h - e * g,
            b * g - a * h,
            a * e - b * d,
        ])
    }

    fn after(&self, first: &Self) -> Self {
        Self(std::array::from_fn(|index| {
            let (row, column) = (index / 3, index % 3);
            (0..3).map(|k| self.0[row * 3 + k] * first.0[k * 3 + column]).sum()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_go_to_corners_and_diagonals_cross_in_the_middle() {
        let from = [(3.5, 3.5), (17.5, 3.5), (17.5, 17.5), (3.5, 17.5)];
        let to = [(100.0, 50.0), (220.0, 80.0), (200.0, 190.0), (90.0, 160.0)];
        let transform = Transform::between(&from, &to).unwrap();
        for (a, b) in from.iter().zip(to) {
            let (x, y) = transform.map(a.0, a.1).unwrap();
            assert!((x - b.0).abs() < 1e-9 && (y - b.1).abs() < 1e-9, "{a:?} went to {x} {y}");
        }
        let (x, y) = transform.map(10.5, 10.5).unwrap();
        let on_line = |(ax, ay): Point, (bx, by): Point| (x - ax) * (by - ay) - (y - ay) * (bx - ax);
        assert!(on_line(to[0], to[2]).abs() < 1e-6 && on_line(to[1], to[3]).abs() < 1e-6);
    }

    #[test]
    fn degenerate_quadrilaterals_have_no_transform() {
        let square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
        let line = [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0)];
        assert_eq!(Transform::between(&square, &line), None);
        assert_eq!(Transform::between(&line, &square), None);
    }

    #[test]
    fn what_is_out_of_sight_has_no_place() {
        let from = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
        let to = [(0.0, 0.0), (10.0, 0.0), (6.0, 5.0), (4.0, 5.0)];
        let transform = Transform::between(&from, &to).unwrap();
        assert!(transform.map(0.5, 0.5).is_some());
        assert_eq!(transform.map(0.5, -1.0 / 4.0), None, "on the horizon");
        assert_eq!(transform.map(f64::NAN, 0.0), None);
    }
}
