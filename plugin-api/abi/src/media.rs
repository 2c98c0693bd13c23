//! Audio and pictures that cross without a copy: a pointer, and an owner that keeps it valid.

use abi_stable::{StableAbi, pointer_trait::TransmuteElement, std_types::RArc};
use antiphon_core::{
    AudioChunk, VideoFrame,
    audio::AudioError,
    video::{PixelFormat, VideoError},
};

/// An [`AudioChunk`] on its way across.
#[repr(C)]
#[derive(StableAbi)]
pub struct AudioV1 {
    samples: *const i16,
    len: usize,
    sample_rate_hz: u32,
    channels: u16,
    /// 1: signed 16-bit, interleaved.
    format: u16,
    owner: RArc<()>,
}

/// A [`VideoFrame`] on its way across.
#[repr(C)]
#[derive(StableAbi)]
pub struct VideoV1 {
    pixels: *const u8,
    len: usize,
    width: u32,
    height: u32,
    /// 1: gray, 2: RGB, 3: RGBA; 8 bits each, rows packed.
    format: u32,
    owner: RArc<()>,
}

const S16: u16 = 1;

// SAFETY: the memory is immutable and its owner is `Send + Sync` (`AudioChunk`, `VideoFrame`).
unsafe impl Send for AudioV1 {}
// SAFETY: as above.
unsafe impl Sync for AudioV1 {}
// SAFETY: as above.
unsafe impl Send for VideoV1 {}
// SAFETY: as above.
unsafe impl Sync for VideoV1 {}

/// Why media from the other side is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// A format that this side does not know.
    #[error("media of format {0}, which this side does not know")]
    Format(u32),
    /// No proper audio.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// No proper picture.
    #[error(transparent)]
    Video(#[from] VideoError),
}

impl From<AudioChunk> for AudioV1 {
    fn from(chunk: AudioChunk) -> Self {
        let samples = chunk.samples();
        let (pointer, len) = (samples.as_ptr(), samples.len());
        let (sample_rate_hz, channels) = (chunk.sample_rate_hz(), chunk.channels());
        // SAFETY: an `RArc` of any sized type is a pointer and a vtable that knows how to drop it; nobody restores
        // the type, the other side only keeps it and drops it.
        let owner = unsafe { RArc::new(chunk).transmute_element::<()>() };
        Self { samples: pointer, len, sample_rate_hz, channels, format: S16, owner }
    }
}

/// Memory of the other side.
struct ForeignAudio(AudioV1);

impl AsRef<[i16]> for ForeignAudio {
    fn as_ref(&self) -> &[i16] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: the other side made `samples` and `len` from a slice of what `owner` keeps alive and unchanged
        // (`From<AudioChunk>` above, the only code that makes an `AudioV1`).
        unsafe { std::slice::from_raw_parts(self.0.samples, self.0.len) }
    }
}

impl TryFrom<AudioV1> for AudioChunk {
    type Error = MediaError;

    fn try_from(audio: AudioV1) -> Result<Self, MediaError> {
        if audio.format != S16 {
            return Err(MediaError::Format(audio.format.into()));
        }
        let (sample_rate_hz, channels) = (audio.sample_rate_hz, audio.channels);
        Ok(AudioChunk::new(ForeignAudio(audio), sample_rate_hz, channels)?)
    }
}

impl From<VideoFrame> for VideoV1 {
    fn from(frame: VideoFrame) -> Self {
        let pixels = frame.pixels();
        let (pointer, len) = (pixels.as_ptr(), pixels.len());
        let (width, height) = (frame.width(), frame.height());
        let format = match frame.format() {
            PixelFormat::Gray8 => 1,
            PixelFormat::Rgb8 => 2,
            PixelFormat::Rgba8 => 3,
            // A format that this version of the ABI cannot say; the other side refuses it.
            _ => 0,
        };
        // SAFETY: as for audio.
        let owner = unsafe { RArc::new(frame).transmute_element::<()>() };
        Self { pixels: pointer, len, width, height, format, owner }
    }
}

struct ForeignVideo(VideoV1);

impl AsRef<[u8]> for ForeignVideo {
    fn as_ref(&self) -> &[u8] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: as for audio, with `From<VideoFrame>` as the only maker.
        unsafe { std::slice::from_raw_parts(self.0.pixels, self.0.len) }
    }
}

impl TryFrom<VideoV1> for VideoFrame {
    type Error = MediaError;

    fn try_from(video: VideoV1) -> Result<Self, MediaError> {
        let format = match video.format {
            1 => PixelFormat::Gray8,
            2 => PixelFormat::Rgb8,
            3 => PixelFormat::Rgba8,
            other => return Err(MediaError::Format(other)),
        };
        let (width, height) = (video.width, video.height);
        Ok(VideoFrame::new(ForeignVideo(video), width, height, format)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_crosses_without_a_copy() {
        let mut chunk = AudioChunk::mono(vec![1_i16, 2, 3, 4]);
        let _ = chunk.split_to(1);
        let pointer = chunk.samples().as_ptr();
        let crossed = AudioChunk::try_from(AudioV1::from(chunk)).expect("same format on both sides");
        assert_eq!(crossed.samples(), [2, 3, 4]);
        assert_eq!(crossed.samples().as_ptr(), pointer);
    }

    #[test]
    fn unknown_formats_are_refused() {
        let mut audio = AudioV1::from(AudioChunk::mono(vec![0_i16]));
        audio.format = 9;
        assert!(AudioChunk::try_from(audio).is_err());
    }
}
