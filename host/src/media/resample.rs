//! Changes the sample rate of a stream of mono 16-bit samples.
//!
//! Not here: channels and sample formats, which `wav` reduces to mono `i16` before.

use rubato::{
    Async, Fft, FixedAsync, FixedSync, SincInterpolationParameters, WindowFunction,
    audioadapter_buffers::direct::SequentialSlice,
};

use crate::media::SAMPLE_RATES_HZ;

/// Blocks per second that the filter works in. Longer blocks cut off more sharply but answer later: at 20 ms,
/// what goes to 16 kHz is flat up to 7.5 kHz, and a microphone's usual chunk is exactly one block.
const BLOCKS_PER_SECOND: usize = 50;

/// Smallest common divisor of two rates that the FFT takes on: below, its blocks would be longer than 50 ms.
/// The worst usual pair is 11,025 and 16,000 with 25.
const MIN_FFT_DIVISOR: usize = 20;

/// Window of the low-pass filters. Its side lobes of -92 dB are less than one step of 16 bits, and it leaves
/// more of the band than the squared variant that rubato chooses by default.
const WINDOW: WindowFunction = WindowFunction::BlackmanHarris;

/// Why a [`Resampler`] cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResampleError {
    /// A rate is outside [`SAMPLE_RATES_HZ`].
    #[error("wanted a sample rate of 4000 to 192000 Hz, found {sample_rate_hz} Hz")]
    SampleRate {
        /// The rate.
        sample_rate_hz: u32,
    },
}

/// A converter from one sample rate to another, for mono audio that arrives in pieces of any size.
///
/// Output lags behind input by up to 30 ms (60 ms if one rate is 11,025 Hz, 75 ms between odd rates) until
/// [`finish`](Self::finish) delivers the rest. It is not shifted in time, and its length is that of the
/// input, rounded up to a whole sample. Between equal rates samples pass through at once and untouched.
///
/// # Examples
///
/// ```
/// use antiphon_host::media::Resampler;
///
/// let mut resampler = Resampler::new(48_000, 16_000)?;
/// let mut output = Vec::new();
/// for chunk in [0i16; 4_800].chunks(960) {
///     resampler.process(chunk, &mut output);
/// }
/// resampler.finish(&mut output);
/// assert_eq!(output.len(), 1_600);
/// # Ok::<(), antiphon_host::media::ResampleError>(())
/// ```
pub struct Resampler {
    input_rate_hz: u32,
    output_rate_hz: u32,
    /// `None` between equal rates.
    filter: Option<Filter>,
}

/// The filter of a conversion, with the blocks that it works on.
struct Filter {
    engine: Box<dyn rubato::Resampler<f32>>,
    /// Samples that wait until they make a block.
    input: Vec<f32>,
    output: Vec<f32>,
    /// Delay of the filter in output samples, and how many of them are still to be cut from the front.
    delay: usize,
    to_skip: usize,
    /// Samples taken in and given out since the start of the stream.
    taken: u64,
    given: u64,
}

impl Resampler {
    /// Prepares a conversion; allocates all it needs.
    ///
    /// # Errors
    ///
    /// [`ResampleError::SampleRate`] when a rate is outside [`SAMPLE_RATES_HZ`].
    pub fn new(input_rate_hz: u32, output_rate_hz: u32) -> Result<Self, ResampleError> {
        for sample_rate_hz in [input_rate_hz, output_rate_hz] {
            if !SAMPLE_RATES_HZ.contains(&sample_rate_hz) {
                return Err(ResampleError::SampleRate { sample_rate_hz });
            }
        }
        let filter = (input_rate_hz != output_rate_hz).then(|| Filter::new(input_rate_hz, output_rate_hz));
        Ok(Self { input_rate_hz, output_rate_hz, filter })
    }

    /// Rate of the samples that go in.
    pub fn input_rate_hz(&self) -> u32 {
        self.input_rate_hz
    }

    /// Rate of the samples that come out.
    pub fn output_rate_hz(&self) -> u32 {
        self.output_rate_hz
    }

    /// Takes the next samples and appends to `output` what is ready. Allocates only to make `output` grow.
    pub fn process(&mut self, input: &[i16], output: &mut Vec<i16>) {
        match &mut self.filter {
            Some(filter) => filter.process(input, output),
            None => output.extend_from_slice(input),
        }
    }

    /// Ends the stream: appends the rest to `output`, and is ready for another stream.
    pub fn finish(&mut self, output: &mut Vec<i16>) {
        if let Some(filter) = &mut self.filter {
            let rates = (u64::from(self.input_rate_hz), u64::from(self.output_rate_hz));
            filter.finish((filter.taken * rates.1).div_ceil(rates.0), output);
        }
    }
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resampler")
            .field("input_rate_hz", &self.input_rate_hz)
            .field("output_rate_hz", &self.output_rate_hz)
            .finish_non_exhaustive()
    }
}

impl Filter {
    fn new(input_rate_hz: u32, output_rate_hz: u32) -> Self {
        let (from, to) = (input_rate_hz as usize, output_rate_hz as usize);
        let block = from / BLOCKS_PER_SECOND;
        let (engine, filter_length, first): (Box<dyn rubato::Resampler<f32>>, usize, usize) =
            if common_divisor(from, to) >= MIN_FFT_DIVISOR {
                let fft = Fft::new_custom(from, to, block, 1, 1, WINDOW, FixedSync::Both)
                    .expect("rates and block are above zero");
                let filter_length = fft.fft_size_in();
                (Box::new(fft), filter_length, 0)
            } else {
                // The filter spans input samples. On the way down it must span as many of the output.
                let filter_length = 256 * from.div_ceil(to);
                let parameters = SincInterpolationParameters::new(filter_length, WINDOW);
                let sinc =
                    Async::new_sinc(to as f64 / from as f64, 1.0, &parameters, block, 1, FixedAsync::Input)
                        .expect("ratio and block are above zero, and the ratio may not change");
                (Box::new(sinc), filter_length, 1)
            };
        // The middle tap of the filter, to the nearest output sample: `output_delay` rounds earlier, and is
        // several samples off on the way up from an odd length. `Async` leaves out the very first sample.
        let delay = (filter_length / 2 * to + from / 2) / from - first;
        Self {
            input: Vec::with_capacity(engine.input_frames_max()),
            output: vec![0.0; engine.output_frames_max()],
            engine,
            delay,
            to_skip: delay,
            taken: 0,
            given: 0,
        }
    }

    fn process(&mut self, mut input: &[i16], output: &mut Vec<i16>) {
        self.taken += input.len() as u64;
        loop {
            let room = self.engine.input_frames_next() - self.input.len();
            let (now, later) = input.split_at(room.min(input.len()));
            self.input.extend(now.iter().map(|sample| f32::from(*sample)));
            if now.len() < room {
                return;
            }
            self.convert_block(u64::MAX, output);
            input = later;
        }
    }

    /// Pushes silence through until `wanted` samples of the stream have been given out, then starts afresh.
    fn finish(&mut self, wanted: u64, output: &mut Vec<i16>) {
        while self.given < wanted {
            self.input.resize(self.engine.input_frames_next(), 0.0);
            self.convert_block(wanted, output);
        }
        self.engine.reset();
        self.input.clear();
        self.to_skip = self.delay;
        (self.taken, self.given) = (0, 0);
    }

    /// Runs the filter over the full input block and appends what it yields, up to `limit` samples of the
    /// stream.
    fn convert_block(&mut self, limit: u64, output: &mut Vec<i16>) {
        let frames = self.output.len();
        let input = SequentialSlice::new(&self.input, 1, self.input.len()).expect("one channel fits exactly");
        let mut block =
            SequentialSlice::new_mut(&mut self.output, 1, frames).expect("one channel fits exactly");
        let (_, made) = self
            .engine
            .process_into_buffer(&input, &mut block, None)
            .expect("the input is as long as asked for, the output as long as it can get");
        self.input.clear();

        let skipped = self.to_skip.min(made);
        self.to_skip -= skipped;
        let left = usize::try_from(limit - self.given).unwrap_or(usize::MAX);
        let end = skipped + left.min(made - skipped);
        // `as` saturates: a filter overshoots by some percent where the input is at full scale.
        output.extend(self.output[skipped..end].iter().map(|sample| sample.round() as i16));
        self.given += (end - skipped) as u64;
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    const USUAL_RATES: [u32; 11] =
        [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000];

    fn sine(frequency_hz: f64, sample_rate_hz: u32, samples: usize) -> Vec<i16> {
        let step = TAU * frequency_hz / f64::from(sample_rate_hz);
        (0..samples).map(|n| (10_000.0 * (step * n as f64).sin()).round() as i16).collect()
    }

    fn convert(input: &[i16], from: u32, to: u32, piece: usize) -> Vec<i16> {
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut output = Vec::new();
        for piece in input.chunks(piece) {
            resampler.process(piece, &mut output);
        }
        resampler.finish(&mut output);
        output
    }

    /// Asserts that `output` is the sine of amplitude 10,000 that it should be, give or take `tolerance` in
    /// any sample and half a sample in time; where the sine starts and stops is left out.
    #[track_caller]
    fn check_sine(output: &[i16], frequency_hz: f64, sample_rate_hz: u32, tolerance: f64) {
        let step = TAU * frequency_hz / f64::from(sample_rate_hz);
        let edge = sample_rate_hz as usize / 20;
        // Whole periods of every frequency in these tests.
        let inner = edge..edge + sample_rate_hz as usize / 5 * 2;
        let project = |wave: fn(f64) -> f64| {
            let sum: f64 = inner.clone().map(|n| f64::from(output[n]) * wave(step * n as f64)).sum();
            2.0 * sum / inner.len() as f64
        };
        let (sine, cosine) = (project(f64::sin), project(f64::cos));
        let amplitude = sine.hypot(cosine);
        assert!((amplitude - 10_000.0).abs() <= tolerance, "amplitude {amplitude}");
        let shift = cosine.atan2(sine) / step;
        assert!(shift.abs() <= 0.55, "shifted by {shift} samples");
        for n in inner {
            let want = sine * (step * n as f64).sin() + cosine * (step * n as f64).cos();
            let found = f64::from(output[n]);
            assert!((found - want).abs() <= tolerance, "sample {n} is {found}, not {want}");
        }
    }

    #[test]
    fn equal_rates_pass_through_untouched() {
        let input = sine(440.0, 16_000, 1_234);
        let mut output = Vec::new();
        let mut resampler = Resampler::new(16_000, 16_000).unwrap();
        resampler.process(&input, &mut output);
        assert_eq!(output, input);
        resampler.finish(&mut output);
        assert_eq!(output, input);
    }

    #[test]
    fn duration_is_kept_whatever_the_rates() {
        for from in USUAL_RATES {
            for to in [8_000, 16_000, 44_100] {
                let mut resampler = Resampler::new(from, to).unwrap();
                for samples in [0, 1, 7, 441, 12_345] {
                    let mut output = Vec::new();
                    resampler.process(&vec![100; samples], &mut output);
                    resampler.finish(&mut output);
                    let want = (samples as u64 * u64::from(to)).div_ceil(u64::from(from));
                    assert_eq!(output.len() as u64, want, "{samples} samples {from} -> {to}");
                }
            }
        }
    }

    #[test]
    fn sine_keeps_frequency_amplitude_and_place() {
        for rate in USUAL_RATES {
            for (from, to) in [(rate, 16_000), (16_000, rate), (24_000, rate), (rate, 11_025)] {
                let output = convert(&sine(1_000.0, from, from as usize / 2), from, to, 999);
                check_sine(&output, 1_000.0, to, 3.0);
            }
        }
    }

    #[test]
    fn odd_rates_are_converted_too() {
        for (from, to) in
            [(44_101, 16_000), (16_000, 44_101), (22_254, 16_000), (191_999, 4_001), (4_001, 191_999)]
        {
            let samples = from as usize / 2;
            let output = convert(&sine(1_000.0, from, samples), from, to, 777);
            assert_eq!(output.len() as u64, (samples as u64 * u64::from(to)).div_ceil(u64::from(from)));
            check_sine(&output, 1_000.0, to, 6.0);
        }
    }

    #[test]
    fn what_the_output_cannot_hold_is_filtered_out() {
        for (from, frequency_hz) in
            [(22_050, 8_300.0), (44_100, 9_000.0), (48_000, 8_500.0), (44_101, 10_000.0)]
        {
            let output = convert(&sine(frequency_hz, from, from as usize), from, 16_000, 960);
            // The sudden start and stop of the sine are wide-band and legitimately audible.
            let loudest = output[800..15_200].iter().map(|sample| sample.unsigned_abs()).max().unwrap();
            assert!(loudest <= 2, "{frequency_hz} Hz at {from} Hz leaves {loudest}");
        }
    }

    #[test]
    fn speech_band_is_flat() {
        for (from, to, frequency_hz) in
            [(48_000, 16_000, 7_500.0), (44_100, 16_000, 7_500.0), (8_000, 16_000, 3_400.0)]
        {
            let output = convert(&sine(frequency_hz, from, from as usize), from, to, 960);
            check_sine(&output, frequency_hz, to, 20.0);
        }
    }

    #[test]
    fn size_of_the_pieces_does_not_matter() {
        let input = sine(700.0, 44_100, 10_000);
        let whole = convert(&input, 44_100, 16_000, input.len());
        for piece in [1, 13, 441, 882, 960] {
            assert_eq!(convert(&input, 44_100, 16_000, piece), whole);
        }
    }

    #[test]
    fn finished_resampler_starts_afresh() {
        for (from, to) in [(48_000, 16_000), (44_101, 16_000)] {
            let input = sine(700.0, from, 10_000);
            let mut resampler = Resampler::new(from, to).unwrap();
            let mut runs = [const { Vec::new() }; 2];
            for output in &mut runs {
                resampler.process(&input, output);
                resampler.finish(output);
            }
            assert_eq!(runs[0], runs[1]);
        }
    }

    #[test]
    fn full_scale_saturates_instead_of_wrapping() {
        let input: Vec<i16> = (0..4_800).map(|n| if n / 48 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let output = convert(&input, 48_000, 16_000, 960);
        for (n, sample) in output.iter().enumerate() {
            // Away from the edges of the square wave the sign must be that of the input.
            if (4..12).contains(&(n % 16)) {
                assert_eq!(*sample > 0, n / 16 % 2 == 0, "sample {n} is {sample}");
            }
        }
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        for rate in [0, 1, 3_999, 192_001, u32::MAX] {
            let want = ResampleError::SampleRate { sample_rate_hz: rate };
            assert_eq!(Resampler::new(rate, 16_000).unwrap_err(), want);
            assert_eq!(Resampler::new(16_000, rate).unwrap_err(), want);
            assert_eq!(Resampler::new(rate, rate).unwrap_err(), want);
        }
    }
}
