//! Audio: samples that carry their own format.
//!
//! *Sample* is one number, *audio frame* is one sample per channel, *chunk* is a run of audio frames.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

/// Sample rate of audio inside a session, in hertz. What telephony's wide band and most recognisers take; edges
/// resample to it.
pub const SESSION_SAMPLE_RATE_HZ: u32 = 16_000;

/// Length of the chunks that audio travels in: 20 ms, what telephony and WebRTC packetise by.
pub const CHUNK_DURATION: Duration = Duration::from_millis(20);

/// Whoever owns the memory behind an [`AudioChunk`].
pub trait SampleOwner: AsRef<[i16]> + Send + Sync {}
impl<T: AsRef<[i16]> + Send + Sync> SampleOwner for T {}

/// Interleaved signed 16-bit samples of shape `[frames * channels]`, shared: clones and slices copy no samples.
#[derive(Clone)]
pub struct AudioChunk {
    owner: Arc<dyn SampleOwner>,
    range: Range<usize>,
    sample_rate_hz: u32,
    channels: u16,
}

/// Why samples are no audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// The last audio frame is incomplete.
    #[error("{samples} samples do not divide into frames of {channels} channels")]
    Ragged {
        /// Samples given.
        samples: usize,
        /// Channels given.
        channels: u16,
    },
    /// No channel, or no rate.
    #[error("audio needs a rate and at least one channel, found {sample_rate_hz} Hz and {channels} channels")]
    NoFormat {
        /// Rate given.
        sample_rate_hz: u32,
        /// Channels given.
        channels: u16,
    },
}

impl AudioChunk {
    /// Wraps interleaved samples of shape `[frames * channels]`.
    ///
    /// # Errors
    ///
    /// [`AudioError::Ragged`] when the last frame is incomplete, [`AudioError::NoFormat`] for a zero rate or no channel.
    pub fn new(
        samples: impl SampleOwner + 'static,
        sample_rate_hz: u32,
        channels: u16,
    ) -> Result<Self, AudioError> {
        let len = samples.as_ref().len();
        if channels == 0 || sample_rate_hz == 0 {
            return Err(AudioError::NoFormat { sample_rate_hz, channels });
        }
        if !len.is_multiple_of(usize::from(channels)) {
            return Err(AudioError::Ragged { samples: len, channels });
        }
        Ok(Self { owner: Arc::new(samples), range: 0..len, sample_rate_hz, channels })
    }

    /// Wraps one channel of samples at [`SESSION_SAMPLE_RATE_HZ`].
    #[must_use]
    pub fn mono(samples: impl SampleOwner + 'static) -> Self {
        Self::new(samples, SESSION_SAMPLE_RATE_HZ, 1).expect("one channel has no ragged frame")
    }

    /// The samples, interleaved.
    #[must_use]
    pub fn samples(&self) -> &[i16] {
        &(*self.owner).as_ref()[self.range.clone()]
    }

    /// Audio frames per second.
    #[must_use]
    pub fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    /// Samples per audio frame.
    #[must_use]
    pub fn channels(&self) -> u16 {
        self.channels
    }

    /// Number of audio frames.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.range.len() / usize::from(self.channels)
    }

    /// Playing time.
    #[must_use]
    pub fn duration(&self) -> Duration {
        frames_to_duration(self.frames() as u64, self.sample_rate_hz)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Cuts after `frames` audio frames and returns the front; `self` keeps the rest. Copies nothing.
    #[must_use]
    pub fn split_to(&mut self, frames: usize) -> Self {
        let at = (self.range.start + frames * usize::from(self.channels)).min(self.range.end);
        let front = Self { range: self.range.start..at, ..self.clone() };
        self.range.start = at;
        front
    }
}

impl fmt::Debug for AudioChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudioChunk")
            .field("frames", &self.frames())
            .field("sample_rate_hz", &self.sample_rate_hz)
            .field("channels", &self.channels)
            .finish()
    }
}

/// Playing time of a number of audio frames.
#[must_use]
pub fn frames_to_duration(frames: u64, sample_rate_hz: u32) -> Duration {
    let rate = u64::from(sample_rate_hz.max(1));
    let nanos = (frames % rate) * 1_000_000_000 / rate;
    Duration::from_secs(frames / rate) + Duration::from_nanos(nanos)
}

/// Number of whole audio frames in a playing time.
#[must_use]
pub fn duration_to_frames(duration: Duration, sample_rate_hz: u32) -> u64 {
    let frames = duration.as_nanos() * u128::from(sample_rate_hz) / 1_000_000_000;
    u64::try_from(frames).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_splits_on_frames_without_copying() {
        let mut chunk = AudioChunk::new(vec![1, 2, 3, 4, 5, 6], 8_000, 2).expect("three frames of two");
        let first = chunk.samples().as_ptr();
        let front = chunk.split_to(1);
        assert_eq!((front.samples(), chunk.samples()), (&[1, 2][..], &[3, 4, 5, 6][..]));
        assert_eq!(front.samples().as_ptr(), first);
        assert_eq!(chunk.split_to(9).frames(), 2);
        assert!(chunk.is_empty());
    }

    #[test]
    fn wrong_shapes_are_refused() {
        assert_eq!(
            AudioChunk::new(vec![0; 3], 8_000, 2).unwrap_err(),
            AudioError::Ragged { samples: 3, channels: 2 }
        );
        assert!(AudioChunk::new(vec![0; 3], 0, 1).is_err());
    }

    #[test]
    fn frames_and_durations_agree_for_hours() {
        let day = Duration::from_secs(86_400);
        assert_eq!(frames_to_duration(duration_to_frames(day, 44_100), 44_100), day);
        assert_eq!(frames_to_duration(320, 16_000), CHUNK_DURATION);
    }
}
