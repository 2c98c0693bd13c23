//! Reads a recording as 20 ms chunks of 16 kHz mono, whatever it is stored as.
//!
//! Not here: pacing. A source is as fast as its disk or pipe; who plays it in real time brings the clock.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, IsTerminal, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::media::{
    CHUNK_SAMPLES, SAMPLE_RATES_HZ, SOURCE_RATE_HZ, content, duration_of,
    error::{MediaError, MediaWarning},
    resample::Resampler,
    wav::{self, Encoding},
};

/// Extensions of files that hold samples and nothing else.
const HEADERLESS_EXTENSIONS: [&str; 4] = ["raw", "pcm", "s16", "s16le"];

/// What headerless samples are to be taken for: 16-bit little-endian, of this rate and channel count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFormat {
    /// In hertz, within [`SAMPLE_RATES_HZ`].
    pub sample_rate_hz: u32,
    /// One or two.
    pub channels: u16,
}

impl Default for RawFormat {
    /// 16 kHz mono.
    fn default() -> Self {
        Self { sample_rate_hz: 16_000, channels: 1 }
    }
}

/// How a recording is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordingFormat {
    /// Whether it has no header, so that the rest was assumed.
    pub is_raw: bool,
    /// In hertz.
    pub sample_rate_hz: u32,
    /// One or two.
    pub channels: u16,
    /// How each sample is stored.
    pub encoding: Encoding,
}

impl fmt::Display for RecordingFormat {
    /// For example `wav, 44100 Hz, stereo, 24-bit`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let container = if self.is_raw { "raw" } else { "wav" };
        let channels = if self.channels == 1 { "mono" } else { "stereo" };
        write!(f, "{container}, {} Hz, {channels}, {}", self.sample_rate_hz, self.encoding)
    }
}

/// A recording that is being read, in chunks of [`CHUNK_SAMPLES`] samples at [`SOURCE_RATE_HZ`].
///
/// Two channels are averaged. Only the last chunk may be shorter, so the lengths of all chunks add up to the
/// length of the recording. What was read before a fault is delivered before the fault is reported, and a
/// recording that just ends too early is no fault at all: see [`warning`](Self::warning).
/// Memory stays the same however long the recording is.
///
/// # Examples
///
/// ```no_run
/// use antiphon_host::media::{AudioSource, RawFormat};
///
/// let mut source = AudioSource::open("question.wav", RawFormat::default())?;
/// while let Some(chunk) = source.next_chunk()? {
///     assert!(chunk.len() <= 320);
/// }
/// if let Some(warning) = source.warning() {
///     eprintln!("{warning}");
/// }
/// # Ok::<(), antiphon_host::media::MediaError>(())
/// ```
pub struct AudioSource {
    path: PathBuf,
    format: RecordingFormat,
    /// Device and inode of a regular file.
    identity: Option<(u64, u64)>,
    reader: Box<dyn Read + Send>,
    /// Bytes of samples that the header promises, and those found so far.
    promised_bytes: Option<u64>,
    found_bytes: u64,
    duration_hint: Option<Duration>,
    /// Stored bytes and mono samples of one chunk, kept to be filled again.
    stored: Vec<u8>,
    mono: Vec<i16>,
    resampler: Resampler,
    /// Finished samples that wait for a whole chunk.
    ready: Vec<i16>,
    delivered: u64,
    state: State,
    warning: Option<MediaWarning>,
}

/// Whether the input may yield more.
enum State {
    Reading,
    /// `ready` is the rest; after it comes the failure, once.
    Ended(Option<MediaError>),
}

impl AudioSource {
    /// Opens the file at `path`, or standard input for `-`, and reads its header.
    ///
    /// What starts like a wav file is one. Files named `.raw`, `.pcm`, `.s16` or `.s16le`, pipes and standard
    /// input are otherwise taken for headerless samples of the format `raw`, unless they are recognisably
    /// something else. Waits for the first half kilobyte of a pipe.
    ///
    /// # Errors
    ///
    /// A [`MediaError`] when there is nothing to read, or nothing that can be read as audio.
    pub fn open(path: impl AsRef<Path>, raw: RawFormat) -> Result<Self, MediaError> {
        let path = path.as_ref();
        if path == Path::new("-") {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                return Err(MediaError::Terminal);
            }
            return Self::from_reader(path, stdin, raw);
        }
        let file = File::open(path).map_err(|source| MediaError::opening(path, source))?;
        let metadata = file.metadata().map_err(|source| MediaError::opening(path, source))?;
        if metadata.is_dir() {
            return Err(MediaError::IsDirectory { path: path.to_owned() });
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_named_raw = HEADERLESS_EXTENSIONS.iter().any(|raw| raw.eq_ignore_ascii_case(extension));
        // Files of /proc and the like claim to be regular and empty.
        let total_bytes = Some(metadata.len()).filter(|bytes| metadata.is_file() && *bytes > 0);
        let may_be_raw = is_named_raw || !metadata.is_file();
        let mut source = Self::new(path, Box::new(BufReader::new(file)), total_bytes, may_be_raw, raw)?;
        source.identity = metadata.is_file().then(|| (metadata.dev(), metadata.ino()));
        Ok(source)
    }

    /// Reads from anything that yields bytes, by the rules for standard input; `name` is for messages.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn from_reader(
        name: impl AsRef<Path>,
        reader: impl Read + Send + 'static,
        raw: RawFormat,
    ) -> Result<Self, MediaError> {
        Self::new(name.as_ref(), Box::new(reader), None, true, raw)
    }

    fn new(
        path: &Path,
        mut reader: Box<dyn Read + Send>,
        total_bytes: Option<u64>,
        may_be_raw: bool,
        raw: RawFormat,
    ) -> Result<Self, MediaError> {
        let mut head = vec![0; content::HEAD_BYTES];
        let found = wav::fill(&mut reader, &mut head)
            .map_err(|(_, source)| MediaError::Read { path: path.to_owned(), source })?;
        head.truncate(found);
        if head.is_empty() {
            return Err(MediaError::Empty { path: path.to_owned() });
        }
        let is_wav = content::is_wav(&head);
        let foreign = if may_be_raw { content::signature(&head) } else { Some(content::guess(&head)) };
        let mut reader: Box<dyn Read + Send> = Box::new(io::Cursor::new(head).chain(reader));

        let (format, data_bytes, present_bytes) = if is_wav {
            let header = wav::read_header(&mut reader, total_bytes, path)?;
            let present = total_bytes.map(|total| total.saturating_sub(header.data_start));
            let wav::WavHeader { encoding, channels, sample_rate_hz, data_bytes, .. } = header;
            (RecordingFormat { is_raw: false, sample_rate_hz, channels, encoding }, data_bytes, present)
        } else if let Some(found) = foreign {
            return Err(MediaError::NotWav { path: path.to_owned(), found });
        } else {
            (raw_format(raw, total_bytes, path)?, None, total_bytes)
        };

        let frame_bytes = format.encoding.bytes() * usize::from(format.channels);
        let frames = format.sample_rate_hz.div_ceil(50) as usize;
        let resampler = Resampler::new(format.sample_rate_hz, SOURCE_RATE_HZ)
            .expect("the rate was checked with the format");
        // A truncated file has less than promised, one with tags behind the samples has more.
        let hint_bytes = match (data_bytes, present_bytes) {
            (Some(promised), Some(present)) => Some(promised.min(present)),
            (promised, present) => promised.or(present),
        };
        Ok(Self {
            path: path.to_owned(),
            format,
            identity: None,
            reader,
            promised_bytes: data_bytes,
            found_bytes: 0,
            duration_hint: hint_bytes
                .map(|bytes| duration_of(bytes / frame_bytes as u64, format.sample_rate_hz)),
            stored: vec![0; frames * frame_bytes],
            mono: Vec::with_capacity(frames),
            resampler,
            ready: Vec::new(),
            delivered: 0,
            state: State::Reading,
            warning: None,
        })
    }

    /// Reads on to the next chunk; `None` at the end of the recording.
    ///
    /// Waits for 20 ms of audio if the input is a pipe.
    ///
    /// # Errors
    ///
    /// [`MediaError::Read`] when the system fails to read on; after that the recording has ended.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<i16>>, MediaError> {
        loop {
            if self.ready.len() >= CHUNK_SAMPLES {
                return Ok(Some(self.take_ready(CHUNK_SAMPLES)));
            }
            match &mut self.state {
                State::Reading => self.read_on(),
                State::Ended(_) if !self.ready.is_empty() => {
                    return Ok(Some(self.take_ready(self.ready.len())));
                }
                State::Ended(failure) => return failure.take().map_or(Ok(None), Err),
            }
        }
    }

    /// How the recording is stored.
    pub fn format(&self) -> RecordingFormat {
        self.format
    }

    /// How long the recording is, as far as file size and header tell; `None` for most pipes.
    pub fn duration_hint(&self) -> Option<Duration> {
        self.duration_hint
    }

    /// How much has been delivered.
    pub fn position(&self) -> Duration {
        duration_of(self.delivered, SOURCE_RATE_HZ)
    }

    /// What the user should know about the recording. Complete once the last chunk has been delivered.
    pub fn warning(&self) -> Option<&MediaWarning> {
        self.warning.as_ref()
    }

    /// Whether this reads the very file at `path`, which then must not be written to.
    pub fn is_reading(&self, path: impl AsRef<Path>) -> bool {
        let other = path.as_ref().metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        self.identity.is_some() && self.identity == other
    }

    /// Reads and converts the stored form of one chunk.
    fn read_on(&mut self) {
        let left = self.promised_bytes.map_or(u64::MAX, |promised| promised - self.found_bytes);
        let wanted = self.stored.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (found, failure) = match wav::fill(&mut self.reader, &mut self.stored[..wanted]) {
            Ok(found) => (found, None),
            Err((found, source)) => (found, Some(MediaError::Read { path: self.path.clone(), source })),
        };
        self.found_bytes += found as u64;
        self.mono.clear();
        self.format.encoding.mix_to_mono(&self.stored[..found], self.format.channels, &mut self.mono);
        self.resampler.process(&self.mono, &mut self.ready);
        if found < self.stored.len() {
            self.resampler.finish(&mut self.ready);
            if failure.is_none() {
                self.warning = self.shortcoming();
            }
            self.state = State::Ended(failure);
        }
    }

    /// What is amiss with the samples, now that all have been read.
    fn shortcoming(&self) -> Option<MediaWarning> {
        let path = self.path.clone();
        let frame_bytes = (self.format.encoding.bytes() * usize::from(self.format.channels)) as u64;
        let duration = |bytes| duration_of(bytes / frame_bytes, self.format.sample_rate_hz);
        match (self.promised_bytes, self.found_bytes % frame_bytes) {
            (Some(promised), _) if promised > self.found_bytes => Some(MediaWarning::Truncated {
                path,
                promised: duration(promised),
                found: duration(self.found_bytes),
            }),
            (_, 0) => None,
            (_, bytes) => Some(MediaWarning::Ragged { path, bytes }),
        }
    }

    fn take_ready(&mut self, samples: usize) -> Vec<i16> {
        self.delivered += samples as u64;
        self.ready.drain(..samples).collect()
    }
}

impl fmt::Debug for AudioSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudioSource")
            .field("path", &self.path)
            .field("format", &self.format)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

fn raw_format(raw: RawFormat, total_bytes: Option<u64>, path: &Path) -> Result<RecordingFormat, MediaError> {
    let RawFormat { sample_rate_hz, channels } = raw;
    if !matches!(channels, 1 | 2) {
        return Err(MediaError::Channels { path: path.to_owned(), channels });
    }
    if !SAMPLE_RATES_HZ.contains(&sample_rate_hz) {
        return Err(MediaError::SampleRate { path: path.to_owned(), sample_rate_hz });
    }
    let frame_bytes = 2 * u64::from(channels);
    // Of a pipe this shows only at its end, where it is a warning: by then the audio has been used.
    if let Some(bytes) = total_bytes
        && bytes % frame_bytes != 0
    {
        return Err(MediaError::Ragged { path: path.to_owned(), bytes, frame_bytes });
    }
    Ok(RecordingFormat { is_raw: true, sample_rate_hz, channels, encoding: Encoding::S16 })
}

#[cfg(test)]
mod tests {
    use hound::{SampleFormat, WavSpec};
    use tempfile::TempDir;

    use super::*;

    const RAW: RawFormat = RawFormat { sample_rate_hz: 16_000, channels: 1 };

    /// A wav file by `hound`: a sine of 500 Hz at half of full scale in every channel.
    fn tone(sample_rate: u32, channels: u16, bits_per_sample: u16, is_float: bool, frames: u32) -> Vec<u8> {
        let sample_format = if is_float { SampleFormat::Float } else { SampleFormat::Int };
        let spec = WavSpec { channels, sample_rate, bits_per_sample, sample_format };
        let mut file = io::Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
        for n in 0..frames * u32::from(channels) {
            let sample = wave(n / u32::from(channels), sample_rate);
            match is_float {
                true => writer.write_sample(sample as f32).unwrap(),
                false => {
                    writer.write_sample((sample * 2f64.powi(i32::from(bits_per_sample) - 1)) as i32).unwrap()
                }
            }
        }
        writer.finalize().unwrap();
        file.into_inner()
    }

    fn wave(n: u32, sample_rate_hz: u32) -> f64 {
        (std::f64::consts::TAU * 500.0 * f64::from(n) / f64::from(sample_rate_hz)).sin() / 2.0
    }

    fn piped(bytes: impl Into<Vec<u8>>) -> Result<AudioSource, MediaError> {
        AudioSource::from_reader("-", io::Cursor::new(bytes.into()), RAW)
    }

    /// Reads to the end; asserts that only the last chunk is short.
    #[track_caller]
    fn samples(source: &mut AudioSource) -> Vec<i16> {
        let chunks: Vec<Vec<i16>> = std::iter::from_fn(|| source.next_chunk().unwrap()).collect();
        let (last, others) =
            chunks.split_last().map_or((&[][..], &[][..]), |(last, others)| (&last[..], others));
        assert!(others.iter().all(|chunk| chunk.len() == CHUNK_SAMPLES));
        assert!(last.len() <= CHUNK_SAMPLES && (chunks.is_empty() || !last.is_empty()));
        let samples = chunks.concat();
        assert_eq!(source.position(), duration_of(samples.len() as u64, 16_000));
        samples
    }

    fn file_in(directory: &TempDir, name: &str, content: &[u8]) -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn every_usual_format_gives_the_same_sound() {
        let directory = TempDir::new().unwrap();
        for rate in [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000] {
            for channels in [1, 2] {
                for (bits, is_float) in [(8, false), (16, false), (24, false), (32, false), (32, true)] {
                    let frames = rate / 10 + 3;
                    let path = file_in(&directory, "tone.wav", &tone(rate, channels, bits, is_float, frames));
                    let mut source = AudioSource::open(&path, RAW).unwrap();
                    let label = source.format().to_string();
                    assert_eq!(source.duration_hint(), Some(duration_of(frames.into(), rate)), "{label}");
                    let found = samples(&mut source);
                    assert_eq!(source.warning(), None, "{label}");
                    assert_eq!(found.len() as u32, (frames * 16_000).div_ceil(rate), "{label}");
                    // Half a sample of shift, and what eight bits cannot tell apart.
                    let tolerance = if bits == 8 { 1_950.0 } else { 1_650.0 };
                    for n in 600..1_000 {
                        let want = wave(n, 16_000) * 32_768.0;
                        let error = f64::from(found[n as usize]) - want;
                        assert!(error.abs() <= tolerance, "{label}: sample {n} is off by {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn sixteen_kilohertz_mono_comes_out_bit_for_bit() {
        let file = tone(16_000, 1, 16, false, 1_000);
        let want: Vec<i16> =
            hound::WavReader::new(&file[..]).unwrap().samples().map(Result::unwrap).collect();
        assert_eq!(samples(&mut piped(&file[..]).unwrap()), want);
        let directory = TempDir::new().unwrap();
        for name in ["a.raw", "a.PCM", "a.s16"] {
            let mut source = AudioSource::open(file_in(&directory, name, &file[44..]), RAW).unwrap();
            assert_eq!(source.format().to_string(), "raw, 16000 Hz, mono, 16-bit");
            assert_eq!(source.duration_hint(), Some(Duration::from_micros(62_500)));
            assert_eq!(samples(&mut source), want);
        }
        let mut source = piped(&file[44..]).unwrap();
        assert!(source.format().is_raw);
        assert_eq!(source.duration_hint(), None);
        assert_eq!(samples(&mut source), want);
    }

    #[test]
    fn headerless_samples_can_be_of_another_format() {
        let file = tone(8_000, 2, 16, false, 400);
        let raw = RawFormat { sample_rate_hz: 8_000, channels: 2 };
        let mut bare = AudioSource::from_reader("-", io::Cursor::new(file[44..].to_vec()), raw).unwrap();
        assert_eq!(samples(&mut bare), samples(&mut piped(file).unwrap()));
        for raw in [RawFormat { channels: 3, ..raw }, RawFormat { sample_rate_hz: 0, ..raw }] {
            assert!(AudioSource::from_reader("-", io::repeat(0), raw).is_err());
        }
    }

    #[test]
    fn wav_named_raw_is_not_played_with_its_header() {
        let directory = TempDir::new().unwrap();
        let path = file_in(&directory, "a.raw", &tone(8_000, 1, 16, false, 100));
        assert_eq!(AudioSource::open(path, RAW).unwrap().format().sample_rate_hz, 8_000);
    }

    #[test]
    fn truncated_wav_delivers_what_is_there() {
        let directory = TempDir::new().unwrap();
        let whole = tone(16_000, 1, 16, false, 400);
        let want = samples(&mut piped(&whole[..]).unwrap());
        for length in 0..whole.len() {
            let path = file_in(&directory, "cut.wav", &whole[..length]);
            let opened = [AudioSource::open(&path, RAW), piped(&whole[..length])];
            for (is_piped, opened) in opened.into_iter().enumerate() {
                if length < 44 {
                    // Too short to be told from headerless samples; or a header that is cut.
                    assert!(opened.is_err() || (is_piped == 1 && length < 4), "{length}");
                    continue;
                }
                let mut source = opened.unwrap();
                let count = (length - 44) / 2;
                assert_eq!(samples(&mut source), want[..count]);
                let found = duration_of(count as u64, 16_000);
                assert_eq!(source.duration_hint(), Some([found, Duration::from_millis(25)][is_piped]));
                let path = if is_piped == 1 { "-".into() } else { path.clone() };
                let promised = Duration::from_millis(25);
                assert_eq!(source.warning(), Some(&MediaWarning::Truncated { path, promised, found }));
            }
        }
    }

    #[test]
    fn every_cut_of_a_converted_file_keeps_its_duration() {
        let whole = tone(44_100, 2, 24, false, 100);
        for length in 68..whole.len() {
            let frames = (length - 68) / 6;
            let found = samples(&mut piped(&whole[..length]).unwrap());
            assert_eq!(found.len(), (frames * 160).div_ceil(441));
        }
    }

    #[test]
    fn length_of_a_streamed_wav_does_not_matter() {
        let directory = TempDir::new().unwrap();
        let mut file = tone(16_000, 1, 16, false, 1_000);
        let want = samples(&mut piped(&file[..]).unwrap());
        for (riff, data) in [(0, 0), (36, 0), (u32::MAX, u32::MAX), (0x7fff_f024, 0x7fff_f000)] {
            file[4..8].copy_from_slice(&u32::to_le_bytes(riff));
            file[40..44].copy_from_slice(&u32::to_le_bytes(data));
            let from_file = AudioSource::open(file_in(&directory, "a.wav", &file), RAW).unwrap();
            assert_eq!(from_file.duration_hint(), Some(Duration::from_micros(62_500)));
            for mut source in [from_file, piped(&file[..]).unwrap()] {
                assert_eq!(samples(&mut source), want);
                assert_eq!(source.warning(), None);
            }
        }
    }

    #[test]
    fn what_follows_the_samples_is_not_played() {
        let mut file = tone(16_000, 1, 16, false, 1_000);
        let want = samples(&mut piped(&file[..]).unwrap());
        file.extend(b"LIST\x04\0\0\0INFO");
        let mut source = piped(file).unwrap();
        assert_eq!(samples(&mut source), want);
        assert_eq!(source.warning(), None);
    }

    #[test]
    fn wav_without_samples_is_silent_about_it() {
        let mut source = piped(tone(48_000, 1, 16, false, 0)).unwrap();
        assert!(samples(&mut source).is_empty());
        assert_eq!(source.warning(), None);
    }

    #[test]
    fn odd_byte_is_refused_in_a_file_and_left_out_of_a_pipe() {
        let directory = TempDir::new().unwrap();
        let error = AudioSource::open(file_in(&directory, "a.raw", &[0; 31]), RAW).unwrap_err();
        assert!(matches!(error, MediaError::Ragged { bytes: 31, frame_bytes: 2, .. }), "{error}");
        let mut source = piped([0; 31]).unwrap();
        assert_eq!(samples(&mut source), [0; 15]);
        assert_eq!(source.warning(), Some(&MediaWarning::Ragged { path: "-".into(), bytes: 1 }));
    }

    #[track_caller]
    fn check_refused(directory: &TempDir, name: &str, content: &[u8], want: &str) {
        let path = file_in(directory, name, content);
        let text = AudioSource::open(&path, RAW).unwrap_err().to_string();
        assert!(text.contains(want) && text.contains(path.to_str().unwrap()), "{text}");
    }

    #[test]
    fn what_is_no_recording_is_named() {
        let directory = TempDir::new().unwrap();
        check_refused(&directory, "a.mp3", b"ID3\x04\0\0\0\0\0\0", "found MP3");
        check_refused(&directory, "a.wav", b"OggS\0\x02", "found Ogg");
        check_refused(&directory, "a.pcm", b"fLaC\0\0\0\x22", "found FLAC");
        check_refused(&directory, "agent.toml", b"name = \"demo\"\n", "found text");
        check_refused(&directory, "a.bin", &[0; 100], "give it the extension .raw");
        check_refused(&directory, "a.wav", b"", "no bytes at all");
        check_refused(&directory, "a.raw", b"", "no bytes at all");
        assert!(matches!(piped([]), Err(MediaError::Empty { .. })));
        assert!(matches!(
            piped(b"\x7fELF\x02\x01\x01\0"),
            Err(MediaError::NotWav { found: content::Content::Elf, .. })
        ));
    }

    #[test]
    fn what_is_no_file_is_told_apart() {
        let directory = TempDir::new().unwrap();
        let open = |path: &Path| AudioSource::open(path, RAW).unwrap_err();
        assert!(matches!(open(&directory.path().join("none.wav")), MediaError::NotFound { .. }));
        assert!(matches!(open(directory.path()), MediaError::IsDirectory { .. }));
    }

    #[test]
    fn source_knows_the_file_it_reads() {
        let directory = TempDir::new().unwrap();
        let path = file_in(&directory, "a.wav", &tone(16_000, 1, 16, false, 10));
        let link = directory.path().join("b.wav");
        std::fs::hard_link(&path, &link).unwrap();
        let copy = file_in(&directory, "c.wav", b"");
        let source = AudioSource::open(&path, RAW).unwrap();
        assert!(source.is_reading(&path) && source.is_reading(link));
        assert!(!source.is_reading(copy) && !source.is_reading("no such file"));
        assert!(!piped([0; 2]).unwrap().is_reading(path));
    }

    /// Yields some bytes, then fails.
    struct Failing(io::Cursor<Vec<u8>>);

    impl Read for Failing {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            match self.0.read(bytes)? {
                0 => Err(io::Error::other("unplugged")),
                read => Ok(read),
            }
        }
    }

    #[test]
    fn failure_comes_after_what_was_read_and_only_once() {
        let reader = Failing(io::Cursor::new(vec![1; 2_000]));
        let mut source = AudioSource::from_reader("mic", reader, RAW).unwrap();
        let mut delivered = 0;
        let error = loop {
            match source.next_chunk() {
                Ok(Some(chunk)) => delivered += chunk.len(),
                Ok(None) => panic!("the failure was swallowed"),
                Err(error) => break error,
            }
        };
        assert_eq!(delivered, 1_000);
        assert_eq!(error.to_string(), "cannot read mic");
        assert!(matches!((source.next_chunk(), source.next_chunk()), (Ok(None), Ok(None))));
    }

    /// Numbers that look random and are the same in every run.
    /// Source: xorshift64 of Marsaglia, "Xorshift RNGs", 2003.
    fn random_bytes(seed: u64) -> impl Iterator<Item = u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
    }

    #[test]
    fn nonsense_never_panics_or_hangs() {
        let directory = TempDir::new().unwrap();
        let valid = [tone(22_050, 2, 16, false, 50), tone(48_000, 1, 32, true, 50)];
        for seed in 0..3_000 {
            let mut random = random_bytes(seed);
            let mut bytes: Vec<u8> = match seed % 3 {
                0 => random.by_ref().take(200).collect(),
                1 => b"RIFF\xff\0\0\0WAVEfmt \x10\0\0\0"
                    .iter()
                    .copied()
                    .chain(random.by_ref().take(200))
                    .collect(),
                _ => valid[seed as usize % 2].clone(),
            };
            if seed % 3 == 2 {
                for _ in 0..3 {
                    let place = usize::from(random.next().unwrap()) % 72;
                    bytes[place] = random.next().unwrap();
                }
            }
            let from_file = AudioSource::open(file_in(&directory, "x.raw", &bytes), RAW);
            for mut source in [from_file, piped(&bytes[..])].into_iter().flatten() {
                // 200 bytes are at most 200 samples at 4 kHz.
                assert!(samples(&mut source).len() <= 4 * bytes.len());
            }
        }
    }

    #[test]
    fn endless_header_is_given_up() {
        let endless = b"RIFF\0\0\0\0WAVE".chain(io::repeat(0));
        assert!(matches!(AudioSource::from_reader("-", endless, RAW), Err(MediaError::Header { .. })));
        let huge = b"RIFF\0\0\0\0WAVEid3 \xff\xff\xff\xff".chain(io::repeat(0));
        assert!(matches!(AudioSource::from_reader("-", huge, RAW), Err(MediaError::Header { .. })));
    }
}
