//! Pictures from files: what they are, and their pixels.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
};

use antiphon_core::{VideoFrame, video::PixelFormat};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, error::LimitErrorKind,
};

/// Pixels that a picture may have: more than any camera's, and few enough to be decoded in half a gigabyte.
const MAX_PIXELS: u64 = 64_000_000;

/// Bytes that decoding may take.
const MAX_ALLOC: u64 = 1 << 30;

/// Bytes that a file may have.
const MAX_BYTES: u64 = 1 << 28;

/// A picture that was decoded.
pub(super) struct Picture {
    pub(super) frame: VideoFrame,
    /// Size of its file.
    pub(super) encoded_bytes: u64,
}

/// Why a picture cannot be shown to anybody.
#[derive(Debug, thiserror::Error)]
pub(super) enum PictureError {
    #[error("wanted a picture, found no file at {}; check the path", .0.display())]
    NotFound(PathBuf),
    #[error("wanted a picture, found a directory at {}; name a file in it", .0.display())]
    IsDirectory(PathBuf),
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("wanted a picture, found no bytes at all in {}", .0.display())]
    Empty(PathBuf),
    #[error("wanted a PNG, JPEG or WebP picture, found {found} in {}", .path.display())]
    Format { path: PathBuf, found: String },
    #[error("wanted a picture of at most {MAX_PIXELS} pixels, found {width} x {height} in {}; scale it down", .path.display())]
    TooLarge { path: PathBuf, width: u32, height: u32 },
    #[error("wanted a file of at most {} MB, found {bytes} bytes in {}", MAX_BYTES >> 20, .path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    #[error("{} is cut off or damaged; copy or make it again", .0.display())]
    Damaged(PathBuf, #[source] ImageError),
}

/// Makes sure that a file is likely a picture, from its first bytes.
pub(super) fn check(path: &Path) -> Result<(), PictureError> {
    let mut file = open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(64).read_to_end(&mut head).map_err(|error| reading(path, error))?;
    format(path, &head).map(|_| ())
}

fn open(path: &Path) -> Result<File, PictureError> {
    let file = File::open(path).map_err(|error| reading(path, error))?;
    let metadata = file.metadata().map_err(|error| reading(path, error))?;
    match metadata.len() {
        _ if metadata.is_dir() => Err(PictureError::IsDirectory(path.to_owned())),
        bytes if bytes > MAX_BYTES => Err(PictureError::TooLong { path: path.to_owned(), bytes }),
        _ => Ok(file),
    }
}

fn reading(path: &Path, error: io::Error) -> PictureError {
    match error.kind() {
        io::ErrorKind::NotFound => PictureError::NotFound(path.to_owned()),
        io::ErrorKind::IsADirectory => PictureError::IsDirectory(path.to_owned()),
        _ => PictureError::Read(path.to_owned(), error),
    }
}

fn format(path: &Path, head: &[u8]) -> Result<ImageFormat, PictureError> {
    if head.is_empty() {
        return Err(PictureError::Empty(path.to_owned()));
    }
    let found = match image::guess_format(head) {
        Ok(format) if format.reading_enabled() => return Ok(format),
        Ok(format) => format!("{format:?}").to_uppercase(),
        Err(_) if head.starts_with(b"%PDF") => "PDF".to_owned(),
        Err(_) if !head.contains(&0) && is_text(head) => "text".to_owned(),
        Err(_) => "nothing known".to_owned(),
    };
    Err(PictureError::Format { path: path.to_owned(), found })
}

fn is_text(head: &[u8]) -> bool {
    match str::from_utf8(head) {
        Ok(_) => true,
        // It may be cut within a character.
        Err(error) => error.error_len().is_none(),
    }
}

impl Picture {
    /// Reads and decodes a file. Blocks.
    pub(super) fn read(path: &Path) -> Result<Self, PictureError> {
        let mut bytes = Vec::new();
        open(path)?.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| reading(path, error))?;
        let format = format(path, &bytes)?;
        let damaged = |error| PictureError::Damaged(path.to_owned(), error);
        let mut reader = ImageReader::with_format(Cursor::new(&bytes), format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_ALLOC);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(damaged)?;
        let (width, height) = decoder.dimensions();
        let too_large = || PictureError::TooLarge { path: path.to_owned(), width, height };
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(too_large());
        }
        // A picture without a readable note on how it was held is taken as it is.
        let orientation = decoder.orientation().ok();
        let mut image = DynamicImage::from_decoder(decoder).map_err(|error| match error {
            ImageError::Limits(limit) if limit.kind() == LimitErrorKind::InsufficientMemory => too_large(),
            error => damaged(error),
        })?;
        if let Some(orientation) = orientation {
            image.apply_orientation(orientation);
        }
        Ok(Self { frame: frame(image), encoded_bytes: bytes.len() as u64 })
    }
}

fn frame(image: DynamicImage) -> VideoFrame {
    let (width, height) = (image.width(), image.height());
    let (pixels, format) = match image {
        DynamicImage::ImageLuma8(gray) => (gray.into_raw(), PixelFormat::Gray8),
        DynamicImage::ImageLuma16(_) => (image.into_luma8().into_raw(), PixelFormat::Gray8),
        _ if image.color().has_alpha() => (image.into_rgba8().into_raw(), PixelFormat::Rgba8),
        _ => (image.into_rgb8().into_raw(), PixelFormat::Rgb8),
    };
    VideoFrame::new(pixels, width, height, format).expect("a decoded picture has all its pixels")
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, RgbaImage};
    use tempfile::TempDir;

    use super::*;

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).expect("a picture");
        bytes.into_inner()
    }

    #[track_caller]
    fn check_error(name: &str, bytes: &[u8], want: &str) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("writable");
        let error = Picture::read(&path).err().expect("no picture").to_string();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn pixels_keep_their_format() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("a.png");
        let check = |image: DynamicImage, want: PixelFormat| {
            std::fs::write(&path, png(&image)).expect("writable");
            let picture = Picture::read(&path).expect("a picture");
            assert_eq!((picture.frame.format(), picture.frame.width(), picture.frame.height()), (want, 3, 2));
            super::check(&path).expect("a picture");
        };
        check(GrayImage::new(3, 2).into(), PixelFormat::Gray8);
        check(RgbaImage::new(3, 2).into(), PixelFormat::Rgba8);
        check(DynamicImage::new_rgb16(3, 2), PixelFormat::Rgb8);
    }

    #[test]
    fn what_is_no_picture_is_named() {
        check_error("a.png", b"", "found no bytes at all");
        check_error("a.png", b"just some words", "found text in");
        check_error("a.gif", b"GIF89a\0\0\0\0", "found GIF in");
        check_error("a.jpg", &[0, 1, 2, 3, 4, 5], "found nothing known in");
        let whole = png(&DynamicImage::new_rgb8(64, 64));
        check_error("a.png", &whole[..whole.len() / 2], "is cut off or damaged");
        check_error("a.png", &whole[..20], "is cut off or damaged");
    }

    #[test]
    fn pictures_beyond_the_limit_are_refused_by_their_header() {
        let mut bytes = png(&DynamicImage::new_luma8(1, 1));
        bytes[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let mut crc = 0xffff_ffff_u32;
        for byte in &bytes[12..29] {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
        check_error("a.png", &bytes, "found 16384 x 16384");
    }

    #[test]
    fn places_without_a_file_are_named() {
        let directory = TempDir::new().expect("a directory");
        assert!(matches!(check(&directory.path().join("none")), Err(PictureError::NotFound(_))));
        assert!(matches!(check(directory.path()), Err(PictureError::IsDirectory(_))));
    }
}
