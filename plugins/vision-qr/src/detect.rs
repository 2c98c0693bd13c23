//! QR codes in a gray picture: where they are and what they say.
//!
//! [`locate`](crate::locate) finds the squares, the crate `rqrr` corrects and decodes their bits. `rqrr` can find
//! squares too, but what a picture does to that search has no bound: version 0.11 panics on one of the 179 photos of
//! the zxing test set (its issue 54), and takes 2.6 s for 300 x 240 pixels tiled with finder patterns, where ours takes
//! 17 ms. Of these photos it reads 101 and ours 155, in the same time.
//!
//! Not here: picture files and colours (`luma.rs`).

#[cfg(test)]
mod tests;

use rqrr::{DeQRError, Grid, SimpleGrid};
use thiserror::Error;

use crate::{
    config::Settings,
    locate::{self, Bitmap, Square},
};

/// Sides of the window whose mean separates dark from light, as parts of the longer side: a wide one that sees even a
/// code that fills the picture, then a narrow one for uneven light. Source: of the 179 zxing photos they read 148 and
/// 152, one after the other 155.
const WINDOWS: [u32; 2] = [4, 8];

/// One QR code of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Code {
    /// What it says, or why that cannot be read.
    pub text: Result<String, CodeError>,
    /// Its corners in pixels, clockwise from the one that is top left in the code itself. May lie outside of the
    /// picture by a little when the code is cut.
    pub corners: [(i32, i32); 4],
    /// Left edge of the box around the code, in pixels; the box lies within the picture.
    pub x1: u32,
    /// Upper edge of the box.
    pub y1: u32,
    /// Right edge of the box: the first column outside.
    pub x2: u32,
    /// Lower edge of the box: the first row outside.
    pub y2: u32,
    /// Size of the code, `1..=40`: it has `17 + 4 * version` modules on each side.
    pub version: u8,
    /// How much damage it can bear; unknown when that cannot be read either.
    pub ecc: Option<Ecc>,
}

/// Level of error correction, by the share of the code that may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ecc {
    /// L, about 7 %.
    Low,
    /// M, about 15 %.
    Medium,
    /// Q, about 25 %.
    Quartile,
    /// H, about 30 %.
    High,
}

impl Ecc {
    /// The letter of the standard.
    pub fn letter(self) -> char {
        match self {
            Self::Low => 'L',
            Self::Medium => 'M',
            Self::Quartile => 'Q',
            Self::High => 'H',
        }
    }

    /// From the two bits of the format information. Source: ISO/IEC 18004, table "error correction level indicators".
    fn from_bits(bits: u16) -> Option<Self> {
        [Self::Medium, Self::Low, Self::High, Self::Quartile].get(usize::from(bits)).copied()
    }
}

/// A code is there but cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodeError {
    /// More is covered or blurred than its error correction makes up for. Another frame may do better.
    #[error("code is damaged beyond its error correction")]
    Damaged,
    /// It was read, but holds something else than text: another character set, or bare bytes.
    #[error("code holds {} bytes that are not UTF-8", bytes.len())]
    NotText {
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// It was read without error, but its contents break off or are of a kind that is not known here.
    #[error("contents of the code are not understood")]
    Unknown,
}

impl CodeError {
    /// Whether another picture of the same code can be read with more luck.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Damaged)
    }
}

/// A picture that cannot be searched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DetectError {
    /// No pixels.
    #[error("picture has no pixels: {width} x {height}")]
    NoPixels {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// More pixels than the setting allows.
    #[error("picture of {width} x {height} has {pixels} pixels, `max_pixels` is {limit}")]
    TooLarge {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// Their product.
        pixels: u64,
        /// The setting.
        limit: u32,
    },
    /// Width and height do not describe the data.
    #[error("picture of {width} x {height} needs {expected} bytes of brightness, found {found}")]
    WrongLength {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes that there should be.
        expected: u64,
        /// Bytes that there are.
        found: usize,
    },
}

/// Finds the QR codes of a gray picture, from top to bottom.
///
/// `luma` has shape `[height * width]`, row by row without padding, 0 is black. Codes may be rotated, seen at an
/// angle or mirrored; light on dark is not found.
///
/// In a release build a picture of 640 x 480 without a code takes 3 ms, a zxing photo 5 ms on average and 42 ms at
/// most, white noise 30 ns per pixel. Finder patterns without end cost 0.1 s on top, and each code that is read may
/// cost 40 ms.
///
/// # Errors
///
/// [`DetectError`] when the sizes do not fit together or exceed `settings`. A picture without a code, even of one
/// pixel, is no error but an empty list; a code that cannot be read is in the list, with its reason.
pub fn detect(luma: &[u8], width: u32, height: u32, settings: &Settings) -> Result<Vec<Code>, DetectError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(DetectError::NoPixels { width, height });
    }
    if pixels > u64::from(settings.max_pixels) {
        return Err(DetectError::TooLarge { width, height, pixels, limit: settings.max_pixels });
    }
    if luma.len() as u64 != pixels {
        return Err(DetectError::WrongLength { width, height, expected: pixels, found: luma.len() });
    }

    let mut codes: Vec<Code> = Vec::new();
    for parts in WINDOWS {
        let radius = (width.max(height) / parts / 2).max(8);
        let bitmap = Bitmap::new(luma, width as usize, height as usize, radius as usize);
        let found = locate::squares(&bitmap, read);
        let found: Vec<Code> =
            found.into_iter().map(|(square, reading)| code(&square, reading, width, height)).collect();
        let read = found.iter().any(|code| code.text.is_ok());
        if read || codes.is_empty() {
            codes = found;
        }
        if read {
            break;
        }
    }
    codes.sort_by_key(|code| (code.y1, code.x1));
    Ok(codes)
}

/// What `rqrr` makes of the bits of a square.
struct Reading {
    text: Result<String, CodeError>,
    ecc: Option<Ecc>,
}

/// Reads a square; none when its error correction fails, so that it is no code or not cut out well.
fn read(size: usize, bit: &dyn Fn(usize, usize) -> bool) -> Option<Reading> {
    let grid = Grid::new(SimpleGrid::from_func(size, bit));
    let mut bytes = Vec::new();
    let (text, ecc) = match grid.decode_to(&mut bytes) {
        Ok(meta) => {
            let text = String::from_utf8(bytes);
            (
                text.map_err(|error| CodeError::NotText { bytes: error.into_bytes() }),
                Ecc::from_bits(meta.ecc_level),
            )
        }
        Err(DeQRError::UnknownDataType | DeQRError::DataUnderflow | DeQRError::DataOverflow) => {
            let meta = grid.get_raw_data().ok();
            (Err(CodeError::Unknown), meta.and_then(|(meta, _)| Ecc::from_bits(meta.ecc_level)))
        }
        Err(_) => return None,
    };
    Some(Reading { text, ecc })
}

fn code(square: &Square, reading: Option<Reading>, width: u32, height: u32) -> Code {
    let Reading { text, ecc } = reading.unwrap_or(Reading { text: Err(CodeError::Damaged), ecc: None });
    let ends = |values: [f64; 4], limit: u32| {
        let low = values.into_iter().min_by(f64::total_cmp).unwrap_or_default();
        let high = values.into_iter().max_by(f64::total_cmp).unwrap_or_default();
        // A cast from float saturates, so what lies left of the picture becomes 0.
        ((low.round() as u32).min(limit), (high.round() as u32).min(limit))
    };
    let (x1, x2) = ends(square.corners.map(|corner| corner.0), width);
    let (y1, y2) = ends(square.corners.map(|corner| corner.1), height);
    let corners = square.corners.map(|(x, y)| (x.round() as i32, y.round() as i32));
    Code { text, corners, x1, y1, x2, y2, version: square.version, ecc }
}
