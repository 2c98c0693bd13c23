//! A recording that is played: checked first, read later, by a thread of its own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use antiphon_host::media::{AudioSource, MediaError, MediaWarning, RawFormat};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::cli::output::{BARS, warn};

/// Pieces of 20 ms that may wait: a second.
const PIECES: usize = 50;

/// Recordings that are longer get a progress bar.
const LONG: Duration = Duration::from_secs(30);

/// A recording that can be read.
#[derive(Debug)]
pub(super) struct Recording {
    path: PathBuf,
    raw: RawFormat,
    described: String,
    /// Pipes stay open, since they cannot be opened twice. Files do not: there may be thousands.
    source: Option<AudioSource>,
}

/// A recording that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    path: PathBuf,
    pieces: mpsc::Receiver<Message>,
    bar: Option<ProgressBar>,
    samples: u64,
    failure: Option<MediaError>,
}

/// What comes next of a recording.
#[derive(Debug)]
pub(super) enum Piece {
    /// Of 16 kHz, one channel.
    Samples(Vec<i16>),
    /// It cannot be read on.
    Failed(MediaError),
}

#[derive(Debug)]
enum Message {
    Piece(Piece),
    Warning(MediaWarning),
}

impl Recording {
    /// Makes sure that it can be read.
    pub(super) fn open(path: &Path, raw: RawFormat) -> Result<Self, MediaError> {
        let source = AudioSource::open(path, raw)?;
        let length = source.duration_hint().map(|length| format!(", {:.1} s", length.as_secs_f64()));
        let described = format!("{}{}", source.format(), length.unwrap_or_default());
        let source = (!path.is_file()).then_some(source);
        Ok(Self { path: path.to_owned(), raw, described, source })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// How it is stored, in words.
    pub(super) fn described(&self) -> &str {
        &self.described
    }

    /// Whether it is this very file.
    pub(super) fn is_reading(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| {
            let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((metadata.dev(), metadata.ino()))
        };
        self.source.is_none() && identity(&self.path).is_some_and(|own| identity(path) == Some(own))
    }

    /// Begins to read. The thread ends with the recording, or soon after nobody wants more of it; one that waits for a
    /// pipe may outlive the conversation.
    pub(super) fn read(self) -> Result<Reading, MediaError> {
        let Self { path, raw, source, .. } = self;
        let source = match source {
            Some(source) => source,
            None => AudioSource::open(&path, raw)?,
        };
        let length = source.duration_hint().filter(|length| *length > LONG);
        let bar = length.map(|length| bar(&path, length));
        let (sender, pieces) = mpsc::channel(PIECES);
        std::thread::spawn(move || deliver(source, &sender));
        Ok(Reading { path, pieces, bar, samples: 0, failure: None })
    }
}

fn deliver(mut source: AudioSource, pieces: &mpsc::Sender<Message>) {
    loop {
        let piece = match source.next_chunk() {
            Ok(Some(samples)) => Piece::Samples(samples),
            Ok(None) => break,
            Err(error) => Piece::Failed(error),
        };
        if pieces.blocking_send(Message::Piece(piece)).is_err() {
            return;
        }
    }
    if let Some(warning) = source.warning() {
        // The conversation is over: nobody to warn.
        let _ = pieces.blocking_send(Message::Warning(warning.clone()));
    }
}

fn bar(path: &Path, length: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent}% {msg}")
        .expect("the template is correct")
        .progress_chars("=> ");
    let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)).with_style(style);
    let bar = BARS.add(bar);
    bar.set_prefix(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    bar.set_message(format!("of {:.0} s", length.as_secs_f64()));
    bar
}

impl Reading {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        loop {
            match self.pieces.recv().await? {
                Message::Warning(warning) => warn(warning),
                Message::Piece(piece) => {
                    if let Piece::Samples(samples) = &piece {
                        self.samples += samples.len() as u64;
                        let position = u64::try_from(self.position().as_millis()).unwrap_or(u64::MAX);
                        self.bar.iter().for_each(|bar| bar.set_position(position));
                    }
                    return Some(piece);
                }
            }
        }
    }

    /// How much was read.
    pub(super) fn position(&self) -> Duration {
        antiphon_core::audio::frames_to_duration(self.samples, antiphon_core::audio::SESSION_SAMPLE_RATE_HZ)
    }

    /// No more of it is wanted.
    pub(super) fn end(&mut self) {
        self.pieces.close();
        self.bar.take().into_iter().for_each(|bar| bar.finish_and_clear());
    }

    /// It broke while it was read.
    pub(super) fn fail(&mut self, error: MediaError) {
        self.failure = Some(error);
    }

    pub(super) fn failure(&self) -> Option<&MediaError> {
        self.failure.as_ref()
    }
}
