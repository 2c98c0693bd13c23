//! 16 kHz samples in, [`Signal`]s out: cuts audio into frames, asks the network, lets the [`Endpointer`] decide.
//!
//! Not here: resampling and mixing to one channel (the host's), and the timing rules (`endpoint.rs`).

#[cfg(test)]
mod recordings;

use std::{fmt, time::Duration};

pub use crate::{
    config::Settings,
    endpoint::{FRAME_SAMPLES, SAMPLE_RATE_HZ, Signal, State},
};

use crate::endpoint::Endpointer;

/// Voice activity and turns of one audio stream; about 9 kB, one per stream.
pub struct Detector {
    vad: Box<earshot::Detector>,
    endpointer: Endpointer,
    /// Samples that wait for the rest of their frame: the first `waiting`.
    partial: [i16; FRAME_SAMPLES],
    waiting: usize,
}

impl Detector {
    /// Starts at position zero, in silence.
    pub fn new(settings: Settings) -> Self {
        Self {
            vad: Box::default(),
            endpointer: Endpointer::new(&settings),
            partial: [0; FRAME_SAMPLES],
            waiting: 0,
        }
    }

    /// Takes the next samples, any number of them: mono, [`SAMPLE_RATE_HZ`]. Calls `sink` for what they decide.
    ///
    /// Costs about 8 us per frame of 16 ms and never allocates. How samples are grouped into calls changes nothing.
    pub fn push(&mut self, mut samples: &[i16], sink: &mut impl FnMut(Signal)) {
        if self.waiting > 0 {
            let missing = (FRAME_SAMPLES - self.waiting).min(samples.len());
            let (head, rest) = samples.split_at(missing);
            self.partial[self.waiting..self.waiting + missing].copy_from_slice(head);
            self.waiting += missing;
            samples = rest;
            if self.waiting < FRAME_SAMPLES {
                return;
            }
            self.waiting = 0;
            self.endpointer.push(self.vad.predict_i16(&self.partial), sink);
        }
        let (frames, rest) = samples.as_chunks::<FRAME_SAMPLES>();
        for frame in frames {
            self.endpointer.push(self.vad.predict_i16(frame), sink);
        }
        self.partial[..rest.len()].copy_from_slice(rest);
        self.waiting = rest.len();
    }

    /// Ends an open segment and an open turn at the end of the input, then starts over at position zero.
    ///
    /// The last samples, when they do not fill a frame, are not judged: 16 ms at most.
    pub fn finish(&mut self, sink: &mut impl FnMut(Signal)) {
        self.endpointer.finish(sink);
        self.vad.reset();
        self.waiting = 0;
    }

    /// Position up to which everything is decided: whole frames since the first sample, or since [`Self::finish`].
    pub fn decided(&self) -> Duration {
        Duration::from_millis(self.decided_samples() * 1000 / u64::from(SAMPLE_RATE_HZ))
    }

    /// [`Self::decided`] in samples.
    pub fn decided_samples(&self) -> u64 {
        self.endpointer.decided() * FRAME_SAMPLES as u64
    }

    /// Probability of voice in the newest decided frame, in `0.0..=1.0`; 0 before the first.
    pub fn probability(&self) -> f32 {
        self.endpointer.probability()
    }

    /// What the newest decided frame belongs to.
    pub fn state(&self) -> State {
        self.endpointer.state()
    }
}

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector").field("endpointer", &self.endpointer).finish_non_exhaustive()
    }
}
