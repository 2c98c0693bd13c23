//! Brightness of pictures in other pixel formats, borrowed where they are gray already.
//!
//! Not here: video formats; a frame whose first plane is brightness needs no conversion.

use std::borrow::Cow;

use image::DynamicImage;

/// Brightness of an RGB picture of shape `[pixels * 3]`. A ragged end is left out.
pub fn from_rgb(rgb: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgb.as_chunks::<3>();
    pixels.iter().map(|&[red, green, blue]| brightness(red, green, blue)).collect()
}

/// Brightness of an RGBA picture of shape `[pixels * 4]` on white paper: transparent is white, as codes without a
/// background expect. A ragged end is left out.
pub fn from_rgba(rgba: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgba.as_chunks::<4>();
    let on_white = |&[red, green, blue, alpha]: &[u8; 4]| {
        let (luma, alpha) = (u32::from(brightness(red, green, blue)), u32::from(alpha));
        ((luma * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    pixels.iter().map(on_white).collect()
}

/// Brightness of a decoded picture; copies nothing when it has 8 bits of gray.
pub fn from_image(image: &DynamicImage) -> Cow<'_, [u8]> {
    match image {
        DynamicImage::ImageLuma8(gray) => Cow::Borrowed(gray.as_raw()),
        DynamicImage::ImageRgb8(rgb) => Cow::Owned(from_rgb(rgb.as_raw())),
        DynamicImage::ImageRgba8(rgba) => Cow::Owned(from_rgba(rgba.as_raw())),
        other if other.color().has_alpha() => Cow::Owned(from_rgba(other.to_rgba8().as_raw())),
        other => Cow::Owned(other.to_luma8().into_raw()),
    }
}

/// Weights of ITU-R BT.601 in 256ths.
fn brightness(red: u8, green: u8, blue: u8) -> u8 {
    ((77 * u32::from(red) + 150 * u32::from(green) + 29 * u32::from(blue)) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;

    #[test]
    fn gray_is_borrowed() {
        let gray = DynamicImage::from(GrayImage::from_pixel(3, 2, Luma([9])));
        let luma = from_image(&gray);
        assert!(matches!(luma, Cow::Borrowed([9, 9, 9, 9, 9, 9])), "{luma:?}");
    }

    #[test]
    fn colours_have_their_brightness_and_transparent_is_white() {
        assert_eq!(from_rgb(&[255, 255, 255, 0, 0, 0, 255, 0, 0, 7]), [255, 0, 76]);
        assert_eq!(from_rgba(&[0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 128]), [0, 255, 127]);
    }

    #[test]
    fn every_kind_of_picture_has_one_byte_per_pixel() {
        let rgb = DynamicImage::from(RgbImage::from_pixel(5, 4, Rgb([10, 10, 10])));
        for image in [rgb.clone(), rgb.to_rgba8().into(), rgb.to_luma_alpha8().into(), rgb.to_rgb16().into()]
        {
            assert_eq!(from_image(&image)[..], [10; 20], "{:?}", image.color());
        }
        let clear = DynamicImage::from(RgbaImage::from_pixel(1, 1, Rgba([0, 0, 0, 0])));
        assert_eq!(from_image(&clear)[..], [255]);
        let clear = DynamicImage::ImageLumaA8(image::ImageBuffer::from_pixel(1, 1, LumaA([0, 0])));
        assert_eq!(from_image(&clear)[..], [255]);
    }
}
