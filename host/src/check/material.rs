//! What plugins are given to hear, read and look at. The same every time.

use antiphon_core::{
    AudioChunk, VideoFrame,
    event::values::{Message, Role},
    video::PixelFormat,
};

/// Samples per second of what plugins hear.
pub(super) const RATE_HZ: u32 = 16_000;

/// Samples of the chunks that a host sends: 20 ms.
const CHUNK: usize = 320;

/// Something for a plugin to work on.
#[derive(Debug, Clone)]
pub(super) enum Input {
    Audio(Vec<AudioChunk>),
    /// A conversation, for language models.
    Messages(Vec<Message>),
    /// Something to be said.
    Text(String),
    Picture(VideoFrame),
}

/// Silence, something like a voice, and silence again, in chunks of 20 ms.
pub(super) fn utterance(voice_ms: usize, silence_ms: usize) -> Input {
    let silence = vec![0_i16; silence_ms * 16];
    let samples = [silence.clone(), voice(voice_ms), silence].concat();
    Input::Audio(samples.chunks(CHUNK).map(|chunk| AudioChunk::mono(chunk.to_vec())).collect())
}

/// Tones at the places of a vowel, in syllables, with noise.
pub(super) fn voice(milliseconds: usize) -> Vec<i16> {
    let mut noise = 1_u32;
    let sample = |index: usize| {
        let time = f64::from(u32::try_from(index).unwrap_or(u32::MAX)) / f64::from(RATE_HZ);
        let tone = |hertz: f64| (time * hertz * std::f64::consts::TAU).sin();
        let vowel: f64 = [(1.0, 0.5), (2.0, 0.5), (5.0, 1.0), (6.0, 0.9), (9.0, 0.6), (20.0, 0.2)]
            .iter()
            .map(|(harmonic, weight)| weight * tone(120.0 * harmonic))
            .sum();
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let hiss = f64::from(noise >> 16) / 65_536.0 - 0.5;
        let syllable = 0.6 - 0.4 * tone(4.0).abs();
        #[expect(clippy::cast_possible_truncation, reason = "at most 4 times 4000")]
        let sample = ((vowel * syllable + hiss * 0.2) * 4000.0) as i16;
        sample
    };
    (0..milliseconds * 16).map(sample).collect()
}

/// Audio in one piece.
pub(super) fn piece(samples: Vec<i16>) -> Input {
    Input::Audio(vec![AudioChunk::mono(samples)])
}

/// A question to a language model.
pub(super) fn question(text: &str) -> Input {
    let message = Message { id: "m1".into(), role: Role::User, content: text.into(), interrupted: false };
    Input::Messages(vec![message])
}

/// A picture with something in each channel.
pub(super) fn gradient(width: u32, height: u32, format: PixelFormat) -> Option<Input> {
    let (columns, rows) = (width as usize, height as usize);
    let pixel = |index: usize| {
        let (row, column) = (index / columns, index % columns);
        [column * 255 / columns, row * 255 / rows, (row + column) % 256, 255]
    };
    let channels = format.bytes_per_pixel();
    let pixels: Vec<u8> = (0..columns * rows)
        .flat_map(|index| pixel(index).into_iter().take(channels))
        .map(|value| u8::try_from(value).unwrap_or(u8::MAX))
        .collect();
    VideoFrame::new(pixels, width, height, format).ok().map(Input::Picture)
}

/// Text in scripts and with characters that programs stumble over.
pub(super) const ODD_TEXT: &str = "a\0b\u{7} \u{1b}[2J tab\tline\r\nnext \u{202e}right\u{202c} שלום مرحبا 你好 👩‍👩‍👧‍👦 e\u{301} \u{feff} <b>&amp; %s {} \\ \"'";
