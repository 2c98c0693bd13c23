//! Codes as a camera sees them: turned, scaled, at an angle, several, damaged, in noise; and pictures that are none.

use image::{
    GrayImage, Luma,
    imageops::{self, FilterType},
};

use super::*;

const GO: &str = "go forward ten meters";

const TEN: &str =
    "Antiphon reads codes of every version; this one has six alignment patterns and two kinds of blocks.";

/// Version 2, 4 pixels per module, quiet zone of 4 modules: 132 pixels wide, the code from 16 to 116.
fn go() -> GrayImage {
    decode(include_bytes!("../../tests/data/go-forward.png"))
}

/// Version 10, 2 pixels per module: 130 pixels wide.
fn ten() -> GrayImage {
    decode(include_bytes!("../../tests/data/version-10.png"))
}

fn decode(png: &[u8]) -> GrayImage {
    image::load_from_memory(png).expect("a PNG of tests/data").to_luma8()
}

fn find(image: &GrayImage) -> Vec<Code> {
    detect(image, image.width(), image.height(), &Settings::default()).expect("sizes that fit")
}

fn texts(image: &GrayImage) -> Vec<String> {
    find(image).into_iter().map(|code| code.text.unwrap_or_else(|error| format!("({error})"))).collect()
}

/// Draws `code` on a white canvas so that the canvas point `(x, y)` shows the code point that `back` tells.
fn draw(code: &GrayImage, width: u32, height: u32, back: impl Fn(f64, f64) -> (f64, f64)) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| {
        // Four looks per pixel make gray edges, as a lens does.
        let look = |dx: f64, dy: f64| {
            let (u, v) = back(f64::from(x) + dx, f64::from(y) + dy);
            let inside = u >= 0.0 && v >= 0.0 && u < f64::from(code.width()) && v < f64::from(code.height());
            if inside { u32::from(code.get_pixel(u as u32, v as u32).0[0]) } else { 255 }
        };
        let sum = look(0.25, 0.25) + look(0.75, 0.25) + look(0.25, 0.75) + look(0.75, 0.75);
        Luma([(sum / 4) as u8])
    })
}

fn turned(code: &GrayImage, degrees: f64, scale: f64) -> GrayImage {
    let side = (f64::from(code.width()) * scale * 1.5) as u32;
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (center, middle) = (f64::from(side) / 2.0, f64::from(code.width()) / 2.0);
    draw(code, side, side, |x, y| {
        let (x, y) = ((x - center) / scale, (y - center) / scale);
        (cos * x + sin * y + middle, cos * y - sin * x + middle)
    })
}

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }
}

#[test]
fn upright_code_has_text_place_version_and_level() {
    let codes = find(&go());
    let want = Code {
        text: Ok(GO.to_owned()),
        corners: [(16, 16), (116, 16), (116, 116), (16, 116)],
        x1: 16,
        y1: 16,
        x2: 116,
        y2: 116,
        version: 2,
        ecc: Some(Ecc::Medium),
    };
    assert_eq!(codes, [want]);

    let codes = find(&ten());
    assert_eq!(codes.len(), 1);
    assert_eq!(codes[0].text.as_deref(), Ok(TEN));
    assert_eq!((codes[0].version, codes[0].ecc), (10, Some(Ecc::Quartile)));
}

#[test]
fn level_is_read_from_the_bits_of_the_standard() {
    let letters: String = (0..4).filter_map(Ecc::from_bits).map(Ecc::letter).collect();
    assert_eq!(letters, "MLHQ");
    assert_eq!(Ecc::from_bits(4), None);
}

#[test]
fn corners_turn_with_the_code() {
    let code = go();
    for (image, first) in [
        (imageops::rotate90(&code), (116, 16)),
        (imageops::rotate180(&code), (116, 116)),
        (imageops::rotate270(&code), (16, 116)),
    ] {
        let codes = find(&image);
        assert_eq!(codes.len(), 1);
        assert_eq!(codes[0].text.as_deref(), Ok(GO));
        assert_eq!(codes[0].corners[0], first);
        assert_eq!((codes[0].x1, codes[0].y1, codes[0].x2, codes[0].y2), (16, 16, 116, 116));
    }
}

#[test]
fn code_is_read_at_any_angle_and_size() {
    for (code, text, smallest) in [(go(), GO, 0.5), (ten(), TEN, 1.0)] {
        for degrees in [0.0, 15.0, 45.0, 100.0, 200.0, 333.0] {
            for scale in [smallest, 1.7] {
                assert_eq!(texts(&turned(&code, degrees, scale)), [text], "{degrees} degrees, scale {scale}");
            }
        }
    }
}

#[test]
fn resized_and_blurred_code_is_read() {
    let code = go();
    for (side, filter) in
        [(66, FilterType::Triangle), (200, FilterType::Nearest), (600, FilterType::CatmullRom)]
    {
        assert_eq!(texts(&imageops::resize(&code, side, side, filter)), [GO], "{side}");
    }
    assert_eq!(texts(&imageops::blur(&code, 1.5)), [GO]);
}

#[test]
fn code_at_an_angle_is_read_and_its_corners_are_found() {
    for (code, text) in [(go(), GO), (imageops::resize(&ten(), 260, 260, FilterType::Nearest), TEN)] {
        let side = f64::from(code.width());
        // Further away at the top: rows shrink by up to a third, and so do their distances.
        let image = draw(&code, code.width() * 2, code.width() * 2, |x, y| {
            let (x, y) = (x / 1.5 - side * 0.66, y / 1.5 - side * 0.66);
            let depth = 1.0 + y / side * 0.4;
            (x / depth + side / 2.0, y / depth + side / 2.0)
        });
        let codes = find(&image);
        assert_eq!(codes.len(), 1);
        assert_eq!(codes[0].text.as_deref(), Ok(text));
        let [(ax, ay), (bx, by), (cx, _), (dx, dy)] = codes[0].corners;
        assert!((bx - ax) * 10 < (cx - dx) * 9, "the upper side is shorter: {:?}", codes[0].corners);
        assert!((ay - by).abs() <= 3 && dy > ay, "{:?}", codes[0].corners);
    }
}

#[test]
fn mirrored_code_is_read() {
    assert_eq!(texts(&imageops::flip_horizontal(&go())), [GO]);
    assert_eq!(texts(&imageops::flip_vertical(&ten())), [TEN]);
}

#[test]
fn code_without_a_quiet_zone_is_read_when_it_fills_the_picture() {
    assert_eq!(texts(&imageops::crop_imm(&go(), 16, 16, 100, 100).to_image()), [GO]);
}

#[test]
fn several_codes_come_from_top_to_bottom() {
    let mut sheet = GrayImage::from_pixel(640, 480, Luma([230]));
    imageops::overlay(&mut sheet, &ten(), 400, 10);
    imageops::overlay(&mut sheet, &turned(&go(), 20.0, 1.0), 30, 60);
    imageops::overlay(&mut sheet, &imageops::rotate90(&go()), 300, 300);
    assert_eq!(texts(&sheet), [TEN, GO, GO]);
}

#[test]
fn every_code_of_a_sheet_is_read() {
    let code = go();
    let mut sheet = GrayImage::from_pixel(132 * 5, 132 * 4, Luma([255]));
    for row in 0..4 {
        for column in 0..5 {
            imageops::overlay(&mut sheet, &code, column * 132, row * 132);
        }
    }
    let codes = find(&sheet);
    assert_eq!(codes.len(), 20);
    for (index, code) in codes.iter().enumerate() {
        let (x, y) = (index as u32 % 5 * 132 + 16, index as u32 / 5 * 132 + 16);
        assert_eq!((code.text.as_deref(), code.x1, code.y1), (Ok(GO), x, y));
    }
}

#[test]
fn little_damage_is_made_up_for_and_much_is_reported() {
    let stain = |side: i32| {
        let mut code = go();
        for y in 0..side {
            for x in 0..side {
                code.put_pixel((66 + x) as u32, (60 + y) as u32, Luma([255]));
            }
        }
        find(&code)
    };
    assert_eq!(stain(12)[0].text.as_deref(), Ok(GO));

    let codes = stain(30);
    assert_eq!(codes.len(), 1);
    assert_eq!(codes[0].text, Err(CodeError::Damaged));
    assert!(codes[0].text.as_ref().is_err_and(CodeError::is_retryable));
    assert_eq!((codes[0].version, codes[0].ecc), (2, None));
    assert!(codes[0].x1.abs_diff(16) <= 2 && codes[0].y2.abs_diff(116) <= 2, "{:?}", codes[0]);
}

#[test]
fn uneven_light_and_low_contrast_are_no_obstacle() {
    let code = imageops::resize(&go(), 396, 396, FilterType::Nearest);
    let lit = GrayImage::from_fn(396, 396, |x, y| {
        let light = 50 + (x + y) * 200 / 792;
        Luma([(u32::from(code.get_pixel(x, y).0[0]) * light / 255 + light / 4) as u8])
    });
    assert_eq!(texts(&lit), [GO]);
    let faint = GrayImage::from_fn(396, 396, |x, y| Luma([100 + code.get_pixel(x, y).0[0] / 8]));
    assert_eq!(texts(&faint), [GO]);
}

#[test]
fn code_is_read_through_the_grain_of_a_dark_camera() {
    let mut noise = Noise(5);
    let mut code = imageops::resize(&go(), 264, 264, FilterType::Nearest);
    for Luma([pixel]) in code.pixels_mut() {
        // Black at 60, white at 160, and each pixel up to 48 off.
        let grain = noise.next() / 4 + noise.next() / 8;
        *pixel = 60 + (u32::from(*pixel) * 100 / 255) as u8 + grain - 48;
    }
    assert_eq!(texts(&code), [GO]);
}

#[test]
fn noise_and_plain_pictures_have_no_code() {
    let mut noise = Noise(7);
    let fine = GrayImage::from_fn(640, 480, |_, _| Luma([noise.next()]));
    let coarse = imageops::resize(
        &GrayImage::from_fn(160, 120, |_, _| Luma([if noise.next() < 110 { 0 } else { 255 }])),
        640,
        480,
        FilterType::Nearest,
    );
    let checks = GrayImage::from_fn(300, 200, |x, y| Luma([if (x / 5 + y / 5) % 2 == 0 { 0 } else { 255 }]));
    for image in [fine, coarse, checks, GrayImage::new(64, 64), GrayImage::from_pixel(64, 64, Luma([255]))] {
        assert_eq!(find(&image), []);
    }
}

#[test]
fn picture_full_of_finder_patterns_ends_and_has_no_code() {
    for module in 1..4 {
        let image = GrayImage::from_fn(200, 160, |x, y| {
            let away = (x / module % 9).abs_diff(4).max((y / module % 9).abs_diff(4));
            Luma([if away < 2 || away == 3 { 0 } else { 255 }])
        });
        assert_eq!(texts(&image), [""; 0], "{module} pixels per module");
    }
}

#[test]
fn light_on_dark_is_not_found() {
    let mut code = go();
    imageops::invert(&mut code);
    assert_eq!(find(&code), []);
}

#[test]
fn pictures_of_every_small_size_are_searched_without_a_panic() {
    let mut noise = Noise(11);
    for width in (1..40).step_by(3) {
        for height in 1..40 {
            let image = GrayImage::from_fn(width, height, |_, _| Luma([noise.next()]));
            assert_eq!(find(&image).len(), 0);
        }
    }
    for (width, height) in [(1, 3000), (3000, 1), (3, 2000)] {
        assert_eq!(find(&GrayImage::from_fn(width, height, |_, _| Luma([noise.next()]))), []);
    }
}

#[test]
fn cut_codes_are_searched_without_a_panic() {
    let code = turned(&go(), 25.0, 1.0);
    for at in (0..code.width()).step_by(13) {
        for (x, y) in [(at, 0), (0, at), (at, at)] {
            let part = imageops::crop_imm(&code, x, y, code.width() - x, code.height() - y).to_image();
            for code in find(&part) {
                assert!(code.x1 <= code.x2 && code.x2 <= part.width(), "{code:?}");
                assert!(code.y1 <= code.y2 && code.y2 <= part.height(), "{code:?}");
            }
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    #[track_caller]
    fn check(bytes: usize, width: u32, height: u32, want: &str) {
        let error = detect(&vec![0; bytes], width, height, &Settings { max_pixels: 1000 }).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
    check(0, 0, 0, "picture has no pixels: 0 x 0");
    check(0, 5, 0, "picture has no pixels: 5 x 0");
    check(0, 5, 5, "picture of 5 x 5 needs 25 bytes of brightness, found 0");
    check(24, 5, 5, "picture of 5 x 5 needs 25 bytes of brightness, found 24");
    check(75, 5, 5, "picture of 5 x 5 needs 25 bytes of brightness, found 75");
    check(1001, 7, 143, "picture of 7 x 143 has 1001 pixels, `max_pixels` is 1000");
    check(
        0,
        u32::MAX,
        u32::MAX,
        "picture of 4294967295 x 4294967295 has 18446744065119617025 pixels, `max_pixels` is 1000",
    );
    assert_eq!(detect(&[0; 1000], 10, 100, &Settings { max_pixels: 1000 }), Ok(Vec::new()));
}
