//! Reads the header of a wav file from a stream, and turns its samples into mono 16 bits.
//!
//! Not here: opening files and changing the rate. `hound` is not used for reading: it cannot be told that a
//! length is unknown or wrong, and it does not say which codec it refuses; in tests it is the second opinion.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
};

use crate::media::{
    SAMPLE_RATES_HZ,
    error::{HeaderFault, MediaError},
};

/// Lengths from here on are taken for "unknown" unless the file is so long: programs that write wav into a
/// pipe announce `0xffffffff` (ffmpeg), `0x80000000` (arecord), or what fits into `0x7ffff000` (sox).
const UNKNOWN_LENGTH: u64 = 0x7fff_e000;

/// How much may precede the samples. Generous: cover art comes in chunks of megabytes.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// How many chunks may precede the samples, so that an endless stream of empty ones ends.
const MAX_HEADER_CHUNKS: usize = 1_000;

/// Tail of the subformat of `WAVE_FORMAT_EXTENSIBLE` that makes its first two bytes a plain format tag.
/// Source: `KSDATAFORMAT_SUBTYPE_WAVEFORMATEX` in Microsoft's `ksmedia.h`.
const PLAIN_SUBFORMAT: [u8; 14] = *b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71";

/// How a sample is stored; always little-endian.
///
/// Samples with fewer bits than their container (12 in 16, 24 in 32) use its high bits, as the format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Unsigned, with silence at 128.
    U8,
    /// Signed, 16 bits.
    S16,
    /// Signed, 24 bits in three bytes.
    S24,
    /// Signed, 32 bits.
    S32,
    /// Floating point in `-1.0..=1.0`, 32 bits.
    F32,
    /// Floating point in `-1.0..=1.0`, 64 bits.
    F64,
}

/// What stands before the samples of a wav file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WavHeader {
    pub(super) encoding: Encoding,
    /// One or two.
    pub(super) channels: u16,
    pub(super) sample_rate_hz: u32,
    /// Offset of the first sample.
    pub(super) data_start: u64,
    /// Bytes of samples that the header promises; `None` when whoever wrote it could not know.
    pub(super) data_bytes: Option<u64>,
}

impl Encoding {
    /// Bytes of one sample.
    pub fn bytes(self) -> usize {
        match self {
            Encoding::U8 => 1,
            Encoding::S16 => 2,
            Encoding::S24 => 3,
            Encoding::S32 | Encoding::F32 => 4,
            Encoding::F64 => 8,
        }
    }

    /// Appends the average of the channels of every whole frame in `bytes`, rounded to 16 bits.
    ///
    /// Floats beyond full scale are clipped; those that are no number become silence.
    pub(super) fn mix_to_mono(self, bytes: &[u8], channels: u16, mono: &mut Vec<i16>) {
        match self {
            Encoding::U8 => mix(bytes, channels, mono, |[b]| (f32::from(b) - 128.0) * 256.0),
            Encoding::S16 => mix(bytes, channels, mono, |b| f32::from(i16::from_le_bytes(b))),
            Encoding::S24 => mix(bytes, channels, mono, |[a, b, c]| scale(i32::from_le_bytes([0, a, b, c]))),
            Encoding::S32 => mix(bytes, channels, mono, |b| scale(i32::from_le_bytes(b))),
            Encoding::F32 => mix(bytes, channels, mono, |b| f32::from_le_bytes(b) * 32_768.0),
            Encoding::F64 => mix(bytes, channels, mono, |b| (f64::from_le_bytes(b) * 32_768.0) as f32),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::U8 => "8-bit",
            Encoding::S16 => "16-bit",
            Encoding::S24 => "24-bit",
            Encoding::S32 => "32-bit",
            Encoding::F32 => "32-bit float",
            Encoding::F64 => "64-bit float",
        })
    }
}

fn scale(sample: i32) -> f32 {
    sample as f32 / 65_536.0
}

fn mix<const N: usize>(bytes: &[u8], channels: u16, mono: &mut Vec<i16>, sample: impl Fn([u8; N]) -> f32) {
    let (samples, _) = bytes.as_chunks::<N>();
    mono.extend(samples.chunks_exact(usize::from(channels)).map(|frame| {
        let sum: f32 = frame.iter().map(|bytes| sample(*bytes)).sum();
        (sum / f32::from(channels)).round() as i16
    }));
}

/// Reads from the first byte of a wav file to the first of its samples.
///
/// `total_bytes` is the length of the whole file where that is known.
pub(super) fn read_header(
    reader: &mut dyn Read,
    total_bytes: Option<u64>,
    path: &Path,
) -> Result<WavHeader, MediaError> {
    let mut walker = Walker { reader, at: 0, path };
    let riff: [u8; 12] = walker.read()?;
    let riff_bytes = u64::from(u32_at(&riff, 4));
    let mut format = None;
    let mut long_data_bytes = None;
    for _ in 0..MAX_HEADER_CHUNKS {
        let chunk: [u8; 8] = walker.read()?;
        let length = u64::from(u32_at(&chunk, 4));
        match &chunk[..4] {
            b"data" => {
                let (encoding, channels, sample_rate_hz) =
                    format.ok_or_else(|| walker.fault(HeaderFault::NoFormat))?;
                let data_start = walker.at;
                let data_bytes = match long_data_bytes {
                    // In the 64-bit kind, the 32-bit length is only a mark.
                    Some(long) if length == u64::from(u32::MAX) => Some(long).filter(|long| *long > 0),
                    _ => trusted_length(length, riff_bytes, data_start, total_bytes),
                };
                return Ok(WavHeader { encoding, channels, sample_rate_hz, data_start, data_bytes });
            }
            b"fmt " => {
                format = Some(walker.read_format(length)?);
                walker.skip(length & 1)?;
            }
            b"ds64" if length >= 16 => {
                let sizes: [u8; 16] = walker.read()?;
                let (_, data) = sizes.split_at(8);
                long_data_bytes = Some(u64::from_le_bytes(data.try_into().expect("eight bytes are left")));
                walker.skip(length - 16 + (length & 1))?;
            }
            // Chunks start at even offsets.
            _ => walker.skip(length + (length & 1))?,
        }
    }
    Err(walker.fault(HeaderFault::NoData { bytes: walker.at }))
}

/// Decides whether the length of the `data` chunk is the truth or was never filled in.
fn trusted_length(length: u64, riff_bytes: u64, data_start: u64, total_bytes: Option<u64>) -> Option<u64> {
    // The length of the whole, which does not count its own first eight bytes, says that more follows.
    let more_follows = riff_bytes < UNKNOWN_LENGTH && riff_bytes + 8 > data_start;
    let fits = total_bytes.is_some_and(|total| data_start + length <= total);
    match length {
        0 if !more_follows => None,
        0xffff_ffff => None,
        UNKNOWN_LENGTH.. if !fits => None,
        length => Some(length),
    }
}

/// A reader that knows where it is in the header.
struct Walker<'a> {
    reader: &'a mut dyn Read,
    at: u64,
    path: &'a Path,
}

impl Walker<'_> {
    fn fault(&self, fault: HeaderFault) -> MediaError {
        MediaError::Header { path: self.path.to_owned(), fault }
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], MediaError> {
        let mut bytes = [0; N];
        let found = fill(self.reader, &mut bytes)
            .map_err(|(_, source)| MediaError::Read { path: self.path.to_owned(), source })?;
        self.at += found as u64;
        if found == N { Ok(bytes) } else { Err(self.fault(HeaderFault::Ends { bytes: self.at })) }
    }

    fn skip(&mut self, bytes: u64) -> Result<(), MediaError> {
        if self.at + bytes > MAX_HEADER_BYTES {
            return Err(self.fault(HeaderFault::NoData { bytes: self.at }));
        }
        let skipped = io::copy(&mut self.reader.take(bytes), &mut io::sink())
            .map_err(|source| MediaError::Read { path: self.path.to_owned(), source })?;
        self.at += skipped;
        if skipped == bytes { Ok(()) } else { Err(self.fault(HeaderFault::Ends { bytes: self.at })) }
    }

    /// Reads a `fmt ` chunk of `length` bytes.
    fn read_format(&mut self, length: u64) -> Result<(Encoding, u16, u32), MediaError> {
        let short = |wanted| HeaderFault::ShortFormat { wanted, found: length as u32 };
        if length < 16 {
            return Err(self.fault(short(16)));
        }
        let format: [u8; 16] = self.read()?;
        let [mut tag, channels, block_bytes, bits] = [0, 2, 12, 14].map(|at| u16_at(&format, at));
        let sample_rate_hz = u32_at(&format, 4);
        let mut rest = length - 16;
        if tag == 0xfffe {
            if length < 40 {
                return Err(self.fault(short(40)));
            }
            let extension: [u8; 24] = self.read()?;
            rest -= 24;
            if extension[10..] == PLAIN_SUBFORMAT {
                tag = u16_at(&extension, 8);
            }
        }
        self.skip(rest)?;

        let path = || self.path.to_owned();
        if !matches!(tag, 1 | 3) {
            return Err(MediaError::Codec { path: path(), tag });
        }
        if !matches!(channels, 0..=2) {
            return Err(MediaError::Channels { path: path(), channels });
        }
        if !SAMPLE_RATES_HZ.contains(&sample_rate_hz) {
            return Err(MediaError::SampleRate { path: path(), sample_rate_hz });
        }
        let container = block_bytes.checked_div(channels).unwrap_or(0);
        if container == 0
            || container * channels != block_bytes
            || !(1..=container.saturating_mul(8)).contains(&bits)
        {
            return Err(self.fault(HeaderFault::BlockAlign { channels, bits, block_bytes }));
        }
        let encoding = match (tag, container) {
            (1, 1) => Encoding::U8,
            (1, 2) => Encoding::S16,
            (1, 3) => Encoding::S24,
            (1, 4) => Encoding::S32,
            (3, 4) if bits == 32 => Encoding::F32,
            (3, 8) if bits == 64 => Encoding::F64,
            _ => {
                let bits = container.saturating_mul(8);
                return Err(MediaError::SampleSize { path: path(), bits, is_float: tag == 3 });
            }
        };
        Ok((encoding, channels, sample_rate_hz))
    }
}

/// Reads until `bytes` is full or the input ends. Tells how much was read, also when the input fails.
pub(super) fn fill(reader: &mut dyn Read, bytes: &mut [u8]) -> Result<usize, (usize, io::Error)> {
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err((filled, err)),
        }
    }
    Ok(filled)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `fmt ` chunk, and what follows it.
    fn format(tag: u16, channels: u16, rate: u32, bits: u16, block_bytes: u16) -> Vec<u8> {
        let mut chunk = Vec::new();
        for field in [tag, channels] {
            chunk.extend(field.to_le_bytes());
        }
        chunk.extend(rate.to_le_bytes());
        chunk.extend((rate * u32::from(block_bytes)).to_le_bytes());
        for field in [block_bytes, bits] {
            chunk.extend(field.to_le_bytes());
        }
        chunk
    }

    fn extensible(subformat: u16, bits: u16, valid_bits: u16) -> Vec<u8> {
        let mut chunk = format(0xfffe, 1, 16_000, bits, bits / 8);
        for field in [22, valid_bits, 4, 0, subformat] {
            chunk.extend(field.to_le_bytes());
        }
        chunk.extend(PLAIN_SUBFORMAT);
        chunk
    }

    /// A file of these chunks, each with the length it announces.
    fn file(riff: &[u8; 4], riff_bytes: u32, chunks: &[(&[u8; 4], u32, &[u8])]) -> Vec<u8> {
        let mut file = [&riff[..], &riff_bytes.to_le_bytes(), b"WAVE"].concat();
        for (name, length, content) in chunks {
            file.extend([&name[..], &length.to_le_bytes(), content].concat());
            if content.len() % 2 == 1 {
                file.push(0);
            }
        }
        file
    }

    fn header(file: &[u8], total_bytes: Option<u64>) -> Result<WavHeader, MediaError> {
        read_header(&mut &file[..], total_bytes, Path::new("a.wav"))
    }

    #[track_caller]
    fn check_format(chunk: &[u8], want: Result<Encoding, &str>) {
        let file = file(b"RIFF", 1_000, &[(b"fmt ", chunk.len() as u32, chunk), (b"data", 10, &[])]);
        match (header(&file, None), want) {
            (Ok(header), want) => assert_eq!(Ok(header.encoding), want),
            (Err(error), want) => {
                let text = error.to_string();
                let want = want.expect_err(&text);
                assert!(text.contains(want), "{text}");
            }
        }
    }

    #[test]
    fn format_decides_how_samples_are_read() {
        check_format(&format(1, 1, 16_000, 8, 1), Ok(Encoding::U8));
        check_format(&format(1, 2, 44_100, 16, 4), Ok(Encoding::S16));
        check_format(&format(1, 1, 16_000, 12, 2), Ok(Encoding::S16));
        check_format(&format(1, 2, 96_000, 24, 6), Ok(Encoding::S24));
        check_format(&format(1, 1, 16_000, 24, 4), Ok(Encoding::S32));
        check_format(&format(3, 1, 16_000, 32, 4), Ok(Encoding::F32));
        check_format(&format(3, 1, 16_000, 64, 8), Ok(Encoding::F64));
        check_format(&extensible(1, 32, 24), Ok(Encoding::S32));
        check_format(&extensible(3, 32, 32), Ok(Encoding::F32));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        check_format(&format(0x11, 1, 8_000, 4, 1), Err("codec 0x0011 (IMA ADPCM)"));
        check_format(&extensible(7, 8, 8), Err("codec 0x0007 (G.711 mu-law)"));
        check_format(&format(0xfffe, 1, 16_000, 16, 2), Err("'fmt ' chunk has 16 bytes where 40 are needed"));
        check_format(&format(1, 6, 48_000, 16, 12), Err("wanted 1 or 2 channels, found 6"));
        check_format(&format(1, 1, 3_999, 16, 2), Err("4000 to 192000 Hz, found 3999 Hz"));
        check_format(&format(1, 1, 192_001, 16, 2), Err("found 192001 Hz"));
        check_format(&format(1, 1, 16_000, 64, 8), Err("found integers of 64 bits"));
        check_format(&format(3, 1, 16_000, 16, 2), Err("found floats of 16 bits"));
        check_format(
            &format(1, 0, 16_000, 16, 2),
            Err("0 channels of 16 bits do not make frames of 2 bytes"),
        );
        check_format(
            &format(1, 2, 16_000, 16, 2),
            Err("2 channels of 16 bits do not make frames of 2 bytes"),
        );
        check_format(&format(1, 1, 16_000, 0, 2), Err("of 0 bits"));
        check_format(&format(1, 1, 16_000, 16, 0), Err("of 0 bytes"));
        check_format(&[1, 0], Err("'fmt ' chunk has 2 bytes where 16 are needed"));
    }

    #[test]
    fn length_that_was_never_filled_in_is_unknown() {
        let chunk = format(1, 1, 16_000, 16, 2);
        let data_bytes = |riff_bytes, data_bytes, total_bytes| {
            let file = file(b"RIFF", riff_bytes, &[(b"fmt ", 16, &chunk), (b"data", data_bytes, &[])]);
            header(&file, total_bytes).unwrap().data_bytes
        };
        for total_bytes in [None, Some(5_000)] {
            assert_eq!(data_bytes(2_036, 2_000, total_bytes), Some(2_000));
            // ffmpeg, sox, arecord; then programs that mean to come back, and were killed before.
            assert_eq!(data_bytes(u32::MAX, u32::MAX, total_bytes), None);
            assert_eq!(data_bytes(0x7fff_f024, 0x7fff_f000, total_bytes), None);
            assert_eq!(data_bytes(0x8000_0024, 0x8000_0000, total_bytes), None);
            assert_eq!(data_bytes(0, 0, total_bytes), None);
            assert_eq!(data_bytes(36, 0, total_bytes), None);
            // No sample at all, but text behind.
            assert_eq!(data_bytes(136, 0, total_bytes), Some(0));
        }
        assert_eq!(data_bytes(0x9000_0024, 0x9000_0000, Some(0x9000_0040)), Some(0x9000_0000));
    }

    #[test]
    fn other_chunks_are_skipped_with_their_padding() {
        let chunk = format(1, 1, 16_000, 16, 2);
        let file = file(
            b"RIFF",
            99,
            &[(b"LIST", 3, b"abc"), (b"fmt ", 16, &chunk), (b"fact", 4, &[0; 4]), (b"data", 2, &[7, 0])],
        );
        let header = header(&file, None).unwrap();
        assert_eq!((header.data_bytes, header.data_start as usize), (Some(2), file.len() - 2));
    }

    #[test]
    fn long_files_have_long_lengths() {
        let chunk = format(1, 2, 96_000, 24, 6);
        let sizes = [9u64 << 32, 6u64 << 32, 0].map(u64::to_le_bytes).concat();
        let chunks: [(_, _, &[u8]); 3] =
            [(b"ds64", 24, &sizes), (b"fmt ", 16, &chunk), (b"data", u32::MAX, &[])];
        assert_eq!(header(&file(b"RF64", u32::MAX, &chunks), None).unwrap().data_bytes, Some(6 << 32));
    }

    #[track_caller]
    fn check_fault(file: &[u8], want: HeaderFault) {
        match header(file, None) {
            Err(MediaError::Header { fault, .. }) => assert_eq!(fault, want),
            other => panic!("wanted {want:?}, found {other:?}"),
        }
    }

    #[test]
    fn damaged_headers_are_told_apart() {
        let chunk = format(1, 1, 16_000, 16, 2);
        let whole = file(b"RIFF", 36, &[(b"fmt ", 16, &chunk), (b"data", 0, &[])]);
        for bytes in 0..whole.len() {
            check_fault(&whole[..bytes], HeaderFault::Ends { bytes: bytes as u64 });
        }
        check_fault(&file(b"RIFF", 36, &[(b"data", 0, &[])]), HeaderFault::NoFormat);
        check_fault(&file(b"RIFF", 36, &[(b"junk", u32::MAX, &[])]), HeaderFault::NoData { bytes: 20 });
        let endless = [&file(b"RIFF", 36, &[])[..], &[0; 9_000]].concat();
        check_fault(&endless, HeaderFault::NoData { bytes: 8_012 });
    }

    #[track_caller]
    fn check_mix(encoding: Encoding, channels: u16, bytes: &[u8], want: &[i16]) {
        let mut mono = Vec::new();
        encoding.mix_to_mono(bytes, channels, &mut mono);
        assert_eq!(mono, want);
    }

    #[test]
    fn samples_keep_their_value_in_sixteen_bits() {
        check_mix(Encoding::U8, 1, &[0, 128, 255], &[-32_768, 0, 32_512]);
        check_mix(Encoding::S16, 1, &[0xff, 0x7f, 0, 0x80, 9], &[i16::MAX, i16::MIN]);
        check_mix(Encoding::S16, 2, &[10, 0, 21, 0, 0, 0x80, 0, 0x80], &[16, i16::MIN]);
        check_mix(Encoding::S24, 1, &[0, 1, 0, 0xff, 0xff, 0x7f], &[1, i16::MAX]);
        check_mix(Encoding::S32, 1, &[0, 0, 0, 0x80, 0, 0, 1, 0], &[i16::MIN, 1]);
        let floats = [0.5, -1.0, 1.0, 7.0, f32::NAN, f32::NEG_INFINITY].map(f32::to_le_bytes).concat();
        check_mix(Encoding::F32, 1, &floats, &[16_384, i16::MIN, i16::MAX, i16::MAX, 0, i16::MIN]);
        check_mix(Encoding::F64, 1, &(-0.25f64).to_le_bytes(), &[-8_192]);
    }
}
