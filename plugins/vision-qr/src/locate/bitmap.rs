//! A picture in black and white: each pixel compared with the mean around it.
//!
//! Not here: anything that knows about codes.

use super::transform::Point;

/// How much darker than its surroundings a pixel must be to count as dark, in percent. Keeps the grain of an even
/// surface white.
const MARGIN_PERCENT: u64 = 10;

/// Dark or light for each pixel; everything outside is light.
pub(crate) struct Bitmap {
    width: usize,
    height: usize,
    /// Row by row.
    dark: Vec<bool>,
}

impl Bitmap {
    /// Separates dark from light by the mean of a square of `2 * radius + 1` pixels.
    ///
    /// # Panics
    ///
    /// When `luma` is shorter than `width * height`: `detect` has checked that.
    pub(crate) fn new(luma: &[u8], width: usize, height: usize, radius: usize) -> Self {
        let mut dark = Vec::with_capacity(width * height);
        // Sums of the rows `top..bottom`, by column.
        let mut columns = vec![0u64; width];
        let (mut top, mut bottom) = (0, 0);
        for y in 0..height {
            while bottom < (y + radius + 1).min(height) {
                let row = &luma[bottom * width..][..width];
                columns.iter_mut().zip(row).for_each(|(sum, &pixel)| *sum += u64::from(pixel));
                bottom += 1;
            }
            while top < y.saturating_sub(radius) {
                let row = &luma[top * width..][..width];
                columns.iter_mut().zip(row).for_each(|(sum, &pixel)| *sum -= u64::from(pixel));
                top += 1;
            }
            // Sum of the columns `left..right`.
            let (mut left, mut right, mut sum) = (0, 0, 0);
            for (x, &pixel) in luma[y * width..][..width].iter().enumerate() {
                while right < (x + radius + 1).min(width) {
                    sum += columns[right];
                    right += 1;
                }
                while left < x.saturating_sub(radius) {
                    sum -= columns[left];
                    left += 1;
                }
                let count = ((bottom - top) * (right - left)) as u64;
                dark.push(u64::from(pixel) * count * 100 < sum * (100 - MARGIN_PERCENT));
            }
        }
        Self { width, height, dark }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &[bool]> {
        self.dark.chunks_exact(self.width)
    }

    /// Colour of a pixel; none outside.
    pub(super) fn pixel(&self, x: i64, y: i64) -> Option<bool> {
        let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
        (x < self.width && y < self.height).then(|| self.dark[y * self.width + x])
    }

    /// Whether the pixel at a place is dark.
    pub(super) fn is_dark(&self, (x, y): Point) -> bool {
        // A cast from float saturates and makes zero of NaN; both are inside or light.
        self.pixel(x.floor() as i64, y.floor() as i64).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dark_is_relative_to_the_surroundings() {
        // Bright left half, dim right half, with a spot in each that is darker than its own half only.
        let (width, height) = (80, 20);
        let mut luma: Vec<u8> = (0..width * height).map(|i| if i % width < 40 { 200 } else { 60 }).collect();
        luma[10 * width + 15] = 100;
        luma[10 * width + 65] = 30;
        let bitmap = Bitmap::new(&luma, width, height, 8);
        let dark = |x| bitmap.pixel(x, 10);
        assert_eq!(
            [dark(15), dark(14), dark(65), dark(64)],
            [Some(true), Some(false), Some(true), Some(false)]
        );
    }

    #[test]
    fn means_are_exact_at_the_borders() {
        let (width, height, radius) = (13, 9, 3);
        let luma: Vec<u8> = (0..width * height).map(|i| (i * 7919 % 256) as u8).collect();
        let bitmap = Bitmap::new(&luma, width, height, radius);
        for y in 0..height {
            for x in 0..width {
                let rows = y.saturating_sub(radius)..(y + radius + 1).min(height);
                let columns = x.saturating_sub(radius)..(x + radius + 1).min(width);
                let count = (rows.len() * columns.len()) as u64;
                let sum: u64 = rows
                    .flat_map(|y| columns.clone().map(move |x| y * width + x))
                    .map(|i| u64::from(luma[i]))
                    .sum();
                let want = u64::from(luma[y * width + x]) * count * 100 < sum * 90;
                assert_eq!(bitmap.pixel(x as i64, y as i64), Some(want), "{x} {y}");
            }
        }
    }

    #[test]
    fn outside_is_light() {
        let bitmap = Bitmap::new(&[0, 255, 255, 255], 2, 2, 1);
        assert!(bitmap.is_dark((0.9, 0.0)));
        for at in [(-0.1, 0.0), (0.0, 2.0), (f64::INFINITY, 0.0), (0.0, f64::NEG_INFINITY)] {
            assert!(!bitmap.is_dark(at), "{at:?}");
        }
    }
}
