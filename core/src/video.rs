//! Video: pixels that carry their own format.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the bytes of a [`VideoFrame`] are laid out; rows are packed, top row first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PixelFormat {
    /// One byte of luminance per pixel.
    Gray8,
    /// Red, green, blue: three bytes per pixel.
    Rgb8,
    /// Red, green, blue, alpha: four bytes per pixel.
    Rgba8,
}

impl PixelFormat {
    /// Bytes per pixel.
    #[must_use]
    pub fn bytes_per_pixel(self) -> usize {
        match self {
            Self::Gray8 => 1,
            Self::Rgb8 => 3,
            Self::Rgba8 => 4,
        }
    }
}

/// Whoever owns the memory behind a [`VideoFrame`].
pub trait PixelOwner: AsRef<[u8]> + Send + Sync {}
impl<T: AsRef<[u8]> + Send + Sync> PixelOwner for T {}

/// One picture, shared: clones copy no pixels.
#[derive(Clone)]
pub struct VideoFrame {
    owner: Arc<dyn PixelOwner>,
    width: u32,
    height: u32,
    format: PixelFormat,
}

/// Why bytes are no picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VideoError {
    /// The bytes do not fill the picture exactly.
    #[error("a {width}x{height} picture of {format:?} has {wanted} bytes, found {found}")]
    WrongSize {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// Layout.
        format: PixelFormat,
        /// Bytes that the picture needs.
        wanted: usize,
        /// Bytes given.
        found: usize,
    },
}

impl VideoFrame {
    /// Wraps packed rows of pixels, `width * height * bytes_per_pixel` bytes.
    ///
    /// # Errors
    ///
    /// [`VideoError::WrongSize`] when the bytes are fewer or more.
    pub fn new(
        pixels: impl PixelOwner + 'static,
        width: u32,
        height: u32,
        format: PixelFormat,
    ) -> Result<Self, VideoError> {
        let wanted = (width as usize)
            .checked_mul(height as usize)
            .and_then(|count| count.checked_mul(format.bytes_per_pixel()))
            .unwrap_or(usize::MAX);
        let found = pixels.as_ref().len();
        if wanted != found {
            return Err(VideoError::WrongSize { width, height, format, wanted, found });
        }
        Ok(Self { owner: Arc::new(pixels), width, height, format })
    }

    /// The bytes, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        (*self.owner).as_ref()
    }

    /// Pixels per row.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Layout of the bytes.
    #[must_use]
    pub fn format(&self) -> PixelFormat {
        self.format
    }
}

impl fmt::Debug for VideoFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoFrame")
            .field("width", &self.width)
            .field("height", &self.height)
            .field("format", &self.format)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_exactly_its_bytes() {
        assert!(VideoFrame::new(vec![0; 12], 2, 2, PixelFormat::Rgb8).is_ok());
        for bytes in [0, 11, 13] {
            assert!(VideoFrame::new(vec![0; bytes], 2, 2, PixelFormat::Rgb8).is_err(), "{bytes}");
        }
        assert!(VideoFrame::new(vec![], u32::MAX, u32::MAX, PixelFormat::Rgba8).is_err());
    }
}
