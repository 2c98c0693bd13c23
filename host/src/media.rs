//! Recordings on disk or in a pipe: 16 kHz mono chunks in, a wav file out.
//!
//! Everything here blocks on I/O: call it from `spawn_blocking`, never from a runtime worker.
//! Not here: events, sessions, and pacing. A source hands out audio as fast as it is asked.

mod content;
mod error;
mod read;
mod resample;
mod wav;
mod write;

use std::{ops::RangeInclusive, time::Duration};

pub use crate::media::{
    content::Content,
    error::{Access, HeaderFault, MediaError, MediaWarning},
    read::{AudioSource, RawFormat, RecordingFormat},
    resample::{ResampleError, Resampler},
    wav::Encoding,
    write::WavWriter,
};

/// Rate of every chunk that an [`AudioSource`] delivers, whatever the rate of the recording.
pub const SOURCE_RATE_HZ: u32 = 16_000;

/// Samples in a chunk of an [`AudioSource`]: 20 ms. Only the last chunk may be shorter.
pub const CHUNK_SAMPLES: usize = 320;

/// Rates that can be read, written and converted.
pub const SAMPLE_RATES_HZ: RangeInclusive<u32> = 4_000..=192_000;

/// How long `samples` of one channel last. Exact to the nanosecond below, for any count.
fn duration_of(samples: u64, sample_rate_hz: u32) -> Duration {
    let rate = u64::from(sample_rate_hz);
    let nanos = (samples % rate) * 1_000_000_000 / rate;
    Duration::new(samples / rate, u32::try_from(nanos).expect("a remainder is below one second"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_can_be_handed_to_a_blocking_thread() {
        fn check<T: Send + 'static>() {}
        check::<AudioSource>();
        check::<WavWriter>();
        check::<Resampler>();
        check::<MediaError>();
    }

    #[test]
    fn durations_are_exact_for_any_count() {
        assert_eq!(duration_of(1, 16_000), Duration::from_nanos(62_500));
        assert_eq!(duration_of(u64::MAX, 4_000).as_secs(), u64::MAX / 4_000);
    }
}
