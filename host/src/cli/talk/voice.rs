//! The agent's voice into a WAV file; all conversations of a run speak into the same one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use antiphon_core::AudioChunk;
use antiphon_host::{
    AudioOutput,
    agent::OutputError,
    media::{MediaError, WavWriter},
};

/// A WAV file that agents speak into. It is whole at every moment.
#[derive(Debug, Clone)]
pub(super) struct Voice {
    path: PathBuf,
    /// Taken when the file is complete.
    writer: Arc<Mutex<Option<WavWriter>>>,
}

impl Voice {
    /// Creates the file; `-` is standard output.
    pub(super) fn create(path: &Path) -> Result<Self, MediaError> {
        let file = if path.as_os_str() == "-" { Path::new("/dev/stdout") } else { path };
        let writer = WavWriter::create(file)?;
        Ok(Self { path: path.to_owned(), writer: Arc::new(Mutex::new(Some(writer))) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the rest, and tells how long it is.
    pub(super) fn finish(self) -> Result<Duration, MediaError> {
        let writer = self
            .writer()
            .take()
            .expect("only `finish` takes it, and it takes the last handle but the agents'");
        writer.finish()
    }

    fn writer(&self) -> MutexGuard<'_, Option<WavWriter>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AudioOutput for Voice {
    fn play(&mut self, audio: &AudioChunk) -> Result<(), OutputError> {
        let mut mono = Vec::new();
        let samples = match usize::from(audio.channels()) {
            1 => audio.samples(),
            channels => {
                let mix = |frame: &[i16]| {
                    frame.iter().map(|sample| i64::from(*sample)).sum::<i64>() / channels as i64
                };
                mono.extend(audio.samples().chunks(channels).map(|frame| mix(frame) as i16));
                &mono
            }
        };
        match self.writer().as_mut() {
            Some(writer) => writer.write(samples, audio.sample_rate_hz()).map_err(OutputError::new),
            // The run was stopped, and this agent did not end in time.
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_speak_one_after_the_other_in_one_channel() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("reply.wav");
        let voice = Voice::create(&path).expect("writable");
        let (mut first, mut second) = (voice.clone(), voice.clone());
        first.play(&AudioChunk::new(vec![100, 300, -100, -300], 16_000, 2).expect("stereo")).expect("played");
        second.play(&AudioChunk::mono(vec![7_i16; 158])).expect("played");
        assert_eq!(voice.finish().expect("complete"), Duration::from_millis(10));
        let mut reader = hound::WavReader::open(&path).expect("a WAV file");
        let samples: Vec<i16> = reader.samples().map(|sample| sample.expect("whole")).collect();
        assert_eq!(&samples[..3], [200, -200, 7]);
        assert!(second.play(&AudioChunk::mono(vec![1_i16])).is_ok());
    }
}
