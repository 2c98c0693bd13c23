//! Recordings of people, from the Debian package `pocketsphinx-testdata`, and what can be made of them.

use std::{
    fs, iter,
    path::{Path, PathBuf},
};

const DATA: &str = "/usr/share/pocketsphinx/test/data";

/// Samples per second of all recordings here.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// "go forward ten meters", 2.8 s.
#[must_use]
#[track_caller]
pub fn go_forward() -> PathBuf {
    data("goforward.raw")
}

/// One sentence of the LibriVox recordings, and what is said in it.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The recording.
    pub path: PathBuf,
    /// Its words, in lower case.
    pub text: String,
}

/// Five sentences from "Sense and Sensibility", read by a volunteer of LibriVox.
///
/// # Panics
///
/// When the package is damaged.
#[must_use]
#[track_caller]
pub fn librivox() -> Vec<Reading> {
    let transcripts = fs::read_to_string(data("librivox/transcription")).expect("the transcripts are text");
    // <s> he was not an ill disposed young man </s> (sense_and_sensibility_01_austen_64kb-0880)
    let reading = |line: &str| {
        let (text, name) = line.rsplit_once(" (").expect("each transcript names its recording");
        let text = text.trim_start_matches("<s> ").trim_end_matches(" </s>").to_owned();
        let path = data(&format!("librivox/{}.wav", name.trim_end_matches(')')));
        Reading { path, text }
    };
    transcripts.lines().map(reading).collect()
}

#[track_caller]
fn data(name: &str) -> PathBuf {
    let path = Path::new(DATA).join(name);
    assert!(
        path.exists(),
        "{} is missing: install the Debian package pocketsphinx-testdata, or run `cargo xtask setup`",
        path.display()
    );
    path
}

/// Samples of a headerless recording.
///
/// # Panics
///
/// When it cannot be read.
#[must_use]
#[track_caller]
pub fn samples(path: &Path) -> Vec<i16> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect()
}

/// Some milliseconds of a room in which nobody speaks.
pub fn silence(milliseconds: usize) -> impl Iterator<Item = i16> {
    iter::repeat_n(0, milliseconds * SAMPLE_RATE_HZ as usize / 1000)
}

/// Writes samples without a header.
///
/// # Panics
///
/// When they cannot be written.
#[track_caller]
pub fn write_raw(path: &Path, samples: impl IntoIterator<Item = i16>) {
    let bytes: Vec<u8> = samples.into_iter().flat_map(i16::to_le_bytes).collect();
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Writes a WAV file of one channel.
///
/// # Panics
///
/// When it cannot be written.
#[track_caller]
pub fn write_wav(path: &Path, samples: impl IntoIterator<Item = i16>) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE_HZ,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("room for a recording");
    for sample in samples {
        writer.write_sample(sample).expect("room for a recording");
    }
    writer.finalize().expect("room for a recording");
}

/// A WAV file, as a program sees it that is not ours.
#[derive(Debug)]
pub struct Wav {
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// How many channels.
    pub channels: u16,
    /// All samples.
    pub samples: Vec<i16>,
}

impl Wav {
    /// Reads a file of 16-bit samples.
    ///
    /// # Panics
    ///
    /// When it is none, or ends before its header says so.
    #[must_use]
    #[track_caller]
    pub fn read(path: &Path) -> Self {
        let mut reader =
            hound::WavReader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let spec = reader.spec();
        let samples = reader
            .samples()
            .map(|sample| sample.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
            .collect();
        Self { sample_rate_hz: spec.sample_rate, channels: spec.channels, samples }
    }

    /// Playing time in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.channels) / f64::from(self.sample_rate_hz)
    }

    /// Seconds in which something is to be heard: parts of 20 ms that are louder than -46 dB of full scale.
    #[must_use]
    pub fn audible_seconds(&self) -> f64 {
        let part = (self.sample_rate_hz / 50) as usize * usize::from(self.channels);
        let is_audible = |part: &&[i16]| {
            let energy: f64 = part.iter().map(|sample| f64::from(*sample).powi(2)).sum();
            (energy / part.len() as f64).sqrt() > 164.0
        };
        self.samples.chunks(part).filter(is_audible).count() as f64 / 50.0
    }
}
