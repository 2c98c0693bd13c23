//! Writes a wav file that is whole at every moment, so that a killed process leaves what it had.
//!
//! Not here: formats other than 16-bit mono, and temporary names: the file grows in place.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::media::{SAMPLE_RATES_HZ, duration_of, error::MediaError, resample::Resampler};

/// Rate of a file into which nothing was written.
const DEFAULT_RATE_HZ: u32 = 16_000;

/// Pieces in which audio reaches the file, per second: what a killed process can lose is a tenth of a second.
const PIECES_PER_SECOND: u32 = 10;

const HEADER_BYTES: u64 = 44;

/// A mono 16-bit wav file that is being written.
///
/// The first samples decide its rate; later ones of another rate are converted to it. Every 100 ms of audio
/// the new samples and then the header reach the file, so it can be opened while it grows. Dropping
/// writes the rest as well as it can; only [`finish`](Self::finish) tells whether that worked.
/// Beyond 4 GiB (37 h at 16 kHz) the header says "until the end", which most programs understand.
///
/// # Examples
///
/// ```no_run
/// use antiphon_host::media::WavWriter;
///
/// let mut writer = WavWriter::create("reply.wav")?;
/// writer.write(&[0; 480], 24_000)?;
/// assert_eq!(writer.finish()?.as_millis(), 20);
/// # Ok::<(), antiphon_host::media::MediaError>(())
/// ```
#[derive(Debug)]
pub struct WavWriter {
    path: PathBuf,
    file: File,
    /// Whether the header can be corrected later; not so in a pipe.
    is_seekable: bool,
    /// Rate of the file, once decided.
    sample_rate_hz: Option<u32>,
    /// From the rate of the latest samples to that of the file.
    resampler: Option<Resampler>,
    /// Samples of less than a piece.
    pending: Vec<i16>,
    /// Samples in the file.
    written: u64,
    is_finished: bool,
}

impl WavWriter {
    /// Creates the file, or empties the one that is there, and puts the header of an empty recording into it.
    ///
    /// What cannot be written is thus found out before any work is done. Pipes and devices are fine, too.
    ///
    /// # Errors
    ///
    /// A [`MediaError`] that tells a missing directory, a missing permission and other reasons apart.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|source| MediaError::creating(path, source))?;
        let metadata = file.metadata().map_err(|source| MediaError::creating(path, source))?;
        let writer = Self {
            path: path.to_owned(),
            file,
            is_seekable: metadata.is_file(),
            sample_rate_hz: None,
            resampler: None,
            pending: Vec::new(),
            written: 0,
            is_finished: false,
        };
        if writer.is_seekable {
            writer.write_header().map_err(|source| writer.failed(source))?;
        }
        Ok(writer)
    }

    /// Appends samples of the given rate.
    ///
    /// # Errors
    ///
    /// [`MediaError::Write`] when the system refuses them, for example because the disk is full. The latest
    /// piece is lost then, the file stays whole, and later calls try again with what they bring.
    /// [`MediaError::SampleRate`] when the rate is outside [`SAMPLE_RATES_HZ`].
    pub fn write(&mut self, samples: &[i16], sample_rate_hz: u32) -> Result<(), MediaError> {
        if !SAMPLE_RATES_HZ.contains(&sample_rate_hz) {
            return Err(MediaError::SampleRate { path: self.path.clone(), sample_rate_hz });
        }
        if samples.is_empty() {
            return Ok(());
        }
        let file_rate_hz = *self.sample_rate_hz.get_or_insert(sample_rate_hz);
        let resampler = match &mut self.resampler {
            Some(resampler) if resampler.input_rate_hz() == sample_rate_hz => resampler,
            other => {
                if let Some(before) = other {
                    before.finish(&mut self.pending);
                }
                other.insert(Resampler::new(sample_rate_hz, file_rate_hz).expect("both rates were checked"))
            }
        };
        resampler.process(samples, &mut self.pending);
        if self.pending.len() >= (file_rate_hz / PIECES_PER_SECOND) as usize { self.flush() } else { Ok(()) }
    }

    /// How much audio was written, as far as it has left the sample rate converter.
    pub fn duration(&self) -> Duration {
        duration_of(self.written + self.pending.len() as u64, self.sample_rate_hz.unwrap_or(DEFAULT_RATE_HZ))
    }

    /// Writes what is left and tells how long the recording is.
    ///
    /// # Errors
    ///
    /// [`MediaError::Write`] when the system refuses the rest.
    pub fn finish(mut self) -> Result<Duration, MediaError> {
        self.complete()?;
        Ok(self.duration())
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        self.is_finished = true;
        if let Some(resampler) = &mut self.resampler {
            resampler.finish(&mut self.pending);
        }
        self.flush()
    }

    /// Moves the pending samples into the file, then makes the header include them.
    fn flush(&mut self) -> Result<(), MediaError> {
        let bytes: Vec<u8> = self.pending.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let samples = self.pending.len() as u64;
        self.pending.clear();
        self.write_piece(&bytes, samples).map_err(|source| self.failed(source))
    }

    fn write_piece(&mut self, bytes: &[u8], samples: u64) -> io::Result<()> {
        if self.is_seekable {
            self.file.write_all_at(bytes, HEADER_BYTES + 2 * self.written)?;
            self.written += samples;
            return self.write_header();
        }
        if self.written == 0 {
            self.file.write_all(&self.header(u32::MAX))?;
        }
        self.file.write_all(bytes)?;
        self.written += samples;
        Ok(())
    }

    fn write_header(&self) -> io::Result<()> {
        let data_bytes = u32::try_from(2 * self.written).unwrap_or(u32::MAX);
        self.file.write_all_at(&self.header(data_bytes), 0)
    }

    fn header(&self, data_bytes: u32) -> [u8; HEADER_BYTES as usize] {
        let rate = self.sample_rate_hz.unwrap_or(DEFAULT_RATE_HZ);
        let mut header = *b"RIFF....WAVEfmt \x10\0\0\0\x01\0\x01\0........\x02\0\x10\0data....";
        header[4..8].copy_from_slice(&data_bytes.saturating_add(36).to_le_bytes());
        header[24..28].copy_from_slice(&rate.to_le_bytes());
        header[28..32].copy_from_slice(&(2 * rate).to_le_bytes());
        header[40..44].copy_from_slice(&data_bytes.to_le_bytes());
        header
    }

    fn failed(&self, source: io::Error) -> MediaError {
        MediaError::Write { path: self.path.clone(), source }
    }
}

impl Drop for WavWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // Who wants to know calls `finish`.
            let _ = self.complete();
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Rate and samples as another program sees them.
    #[track_caller]
    fn read(path: &Path) -> (u32, Vec<i16>) {
        let mut reader = hound::WavReader::open(path).unwrap();
        let spec = reader.spec();
        assert_eq!(
            (spec.channels, spec.bits_per_sample, spec.sample_format),
            (1, 16, hound::SampleFormat::Int)
        );
        (spec.sample_rate, reader.samples().map(Result::unwrap).collect())
    }

    fn ramp(samples: i16) -> Vec<i16> {
        (0..samples).collect()
    }

    #[test]
    fn samples_come_back_as_they_were_written() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.wav");
        let mut writer = WavWriter::create(&path).unwrap();
        for chunk in ramp(5_000).chunks(441) {
            writer.write(chunk, 22_050).unwrap();
        }
        assert_eq!(writer.duration(), duration_of(5_000, 22_050));
        assert_eq!(writer.finish().unwrap(), duration_of(5_000, 22_050));
        assert_eq!(read(&path), (22_050, ramp(5_000)));
    }

    #[test]
    fn nothing_written_is_an_empty_recording_from_the_start() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.wav");
        std::fs::write(&path, [1; 1_000]).unwrap();
        let mut writer = WavWriter::create(&path).unwrap();
        assert_eq!(read(&path), (16_000, vec![]));
        writer.write(&[], 8_000).unwrap();
        assert_eq!(writer.finish().unwrap(), Duration::ZERO);
        assert_eq!(read(&path), (16_000, vec![]));
        assert_eq!(path.metadata().unwrap().len(), 44);
    }

    #[test]
    fn killed_process_leaves_all_but_the_last_tenth_of_a_second() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.wav");
        let mut writer = WavWriter::create(&path).unwrap();
        let samples = ramp(10_000);
        for (n, chunk) in samples.chunks(320).enumerate() {
            writer.write(chunk, 16_000).unwrap();
            let (rate, found) = read(&path);
            let given = samples.len().min((n + 1) * 320);
            assert_eq!((rate, given - found.len() < 1_600), (16_000, true));
            assert_eq!(found, samples[..found.len()]);
        }
        // As in a process that dies, nothing is written any more.
        std::mem::forget(writer);
        assert!(read(&path).1.len() >= 8_400);
    }

    #[test]
    fn dropping_writes_the_rest() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.wav");
        WavWriter::create(&path).unwrap().write(&ramp(10), 16_000).unwrap();
        assert_eq!(read(&path), (16_000, ramp(10)));
    }

    #[test]
    fn later_rates_are_converted_to_the_first() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.wav");
        let mut writer = WavWriter::create(&path).unwrap();
        for (rate, level) in [(24_000, 1_000), (48_000, 2_000), (8_000, 3_000), (24_000, 4_000)] {
            for _ in 0..10 {
                writer.write(&vec![level; rate as usize / 50], rate).unwrap();
            }
        }
        assert_eq!(writer.finish().unwrap(), Duration::from_millis(800));
        let (rate, samples) = read(&path);
        assert_eq!((rate, samples.len()), (24_000, 19_200));
        for (n, level) in [1_000, 2_000, 3_000, 4_000].into_iter().enumerate() {
            let middle = &samples[n * 4_800 + 1_000..][..2_800];
            assert!(middle.iter().all(|sample| sample.abs_diff(level) <= 2), "part {n}");
        }
    }

    #[test]
    fn output_that_cannot_be_written_is_known_before_any_work() {
        let directory = TempDir::new().unwrap();
        let create = |path: &Path| WavWriter::create(path).unwrap_err();
        let missing = directory.path().join("none").join("a.wav");
        match create(&missing) {
            MediaError::NoOutputDirectory { directory, .. } => {
                assert_eq!(directory, missing.parent().unwrap())
            }
            other => panic!("{other}"),
        }
        assert!(matches!(create(directory.path()), MediaError::IsDirectory { .. }));
    }

    #[test]
    fn full_disk_is_an_error_and_devices_are_fine() {
        let mut full = WavWriter::create("/dev/full").unwrap();
        assert!(matches!(full.write(&[1; 5_000], 16_000), Err(MediaError::Write { .. })));
        let mut null = WavWriter::create("/dev/null").unwrap();
        null.write(&[1; 5_000], 16_000).unwrap();
        assert_eq!(null.finish().unwrap(), duration_of(5_000, 16_000));
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        let directory = TempDir::new().unwrap();
        let mut writer = WavWriter::create(directory.path().join("a.wav")).unwrap();
        assert!(matches!(
            writer.write(&[1], 1_000),
            Err(MediaError::SampleRate { sample_rate_hz: 1_000, .. })
        ));
        writer.write(&[1], 8_000).unwrap();
    }

    #[test]
    fn length_beyond_the_format_says_until_the_end() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.wav");
        let mut writer = WavWriter::create(&path).unwrap();
        writer.written = 3 << 30;
        writer.write_header().unwrap();
        let header = std::fs::read(&path).unwrap();
        assert_eq!((&header[4..8], &header[40..44]), (&[0xff; 4][..], &[0xff; 4][..]));
    }
}
