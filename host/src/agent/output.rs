//! Playing: takes the agent's voice piece by piece, at the pace that was asked for, and tells what was played.

use std::{
    any::Any,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    AudioChunk,
    audio::{CHUNK_DURATION, duration_to_frames},
    event::values::panic_message,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use super::Pace;

/// Where an agent's voice goes.
pub trait AudioOutput: Send {
    /// Takes the next audio. Called from a thread that may block.
    ///
    /// # Errors
    ///
    /// The audio cannot be played; the agent tells of it, once, and goes on silently.
    fn play(&mut self, audio: &AudioChunk) -> Result<(), OutputError>;

    /// No more will come.
    ///
    /// # Errors
    ///
    /// As for [`play`](Self::play).
    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Why audio could not be played.
#[derive(Debug, thiserror::Error)]
#[error("the audio could not be played")]
pub struct OutputError {
    source: Box<dyn Error + Send + Sync>,
}

impl OutputError {
    /// Wraps what went wrong.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: source.into() }
    }
}

/// An output that plays nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl AudioOutput for Discard {
    fn play(&mut self, _: &AudioChunk) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Pieces that may wait to be played. In real time more than a second; in the background the output's thread is at most
/// this far behind.
const PIECES: usize = 64;

/// A piece on its way to be played.
#[derive(Debug)]
pub(super) struct Piece {
    /// The reply; pieces of an older one are thrown away.
    pub(super) generation: u64,
    /// Which chunk of the reply.
    pub(super) chunk: usize,
    pub(super) audio: AudioChunk,
}

/// What became of pieces.
#[derive(Debug)]
pub(super) enum Played {
    /// Some of a piece was played; `done` with its last part.
    Some { generation: u64, chunk: usize, duration: Duration, done: bool },
    /// The output failed.
    Failed(OutputError),
}

/// The agent's end of the player.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) pieces: mpsc::Sender<Piece>,
    pub(super) played: mpsc::Receiver<Played>,
    generation: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Player {
    pub(super) fn start(output: Box<dyn AudioOutput>, pace: Pace) -> Self {
        let (pieces, waiting) = mpsc::channel(PIECES);
        let (told, played) = mpsc::channel(PIECES);
        let generation = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(play(output, pace, waiting, told, Arc::clone(&generation)));
        Self { pieces, played, generation, task }
    }

    /// Throws away everything that is not of this generation, also what is being played.
    pub(super) fn flush_before(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Ends after what waits has been played.
    pub(super) async fn finish(self) -> Vec<OutputError> {
        let Self { pieces, mut played, task, .. } = self;
        drop(pieces);
        let mut errors = Vec::new();
        while let Some(message) = played.recv().await {
            if let Played::Failed(error) = message {
                errors.push(error);
            }
        }
        if let Err(error) = task.await {
            tracing::error!("the player failed: {error}");
        }
        errors
    }
}

async fn play(
    mut output: Box<dyn AudioOutput>,
    pace: Pace,
    mut waiting: mpsc::Receiver<Piece>,
    told: mpsc::Sender<Played>,
    generation: Arc<AtomicU64>,
) {
    // Outputs may block, so they have a thread of their own; it ends when `to_output` is dropped.
    let (to_output, mut from_player) = mpsc::channel::<AudioChunk>(PIECES);
    let failures = told.clone();
    let thread = tokio::task::spawn_blocking(move || {
        let mut broken = false;
        while let Some(audio) = from_player.blocking_recv() {
            if !broken && let Err(error) = guarded(|| output.play(&audio)) {
                broken = true;
                // Fails when the agent is gone: nobody to tell.
                let _ = failures.blocking_send(Played::Failed(error));
            }
        }
        if let Err(error) = guarded(|| output.finish()) {
            let _ = failures.blocking_send(Played::Failed(error));
        }
    });
    let mut clock = Clock::new(pace);
    'pieces: while let Some(Piece { generation: own, chunk, mut audio }) = waiting.recv().await {
        loop {
            if own < generation.load(Ordering::Acquire) {
                continue 'pieces;
            }
            let part = clock.next_part(&mut audio).await;
            let (duration, done) = (part.duration(), audio.is_empty());
            if own < generation.load(Ordering::Acquire) {
                continue 'pieces;
            }
            if to_output.send(part).await.is_err()
                || told.send(Played::Some { generation: own, chunk, duration, done }).await.is_err()
            {
                break 'pieces;
            }
            if done {
                break;
            }
        }
    }
    drop(to_output);
    if let Err(error) = thread.await {
        tracing::error!("the output panicked: {error}");
    }
}

/// An output that panics has failed, and nothing else has.
fn guarded(work: impl FnOnce() -> Result<(), OutputError>) -> Result<(), OutputError> {
    let panicked =
        |panic: Box<dyn Any + Send>| OutputError::new(format!("it panicked: {}", panic_message(&*panic)));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic)))
}

/// Cuts audio into what is played at a time.
enum Clock {
    Fast,
    RealTime(Interval),
}

impl Clock {
    fn new(pace: Pace) -> Self {
        match pace {
            Pace::Fast => Self::Fast,
            Pace::RealTime => {
                let mut ticks = interval(CHUNK_DURATION);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
                Self::RealTime(ticks)
            }
        }
    }

    async fn next_part(&mut self, audio: &mut AudioChunk) -> AudioChunk {
        match self {
            Self::Fast => audio.split_to(audio.frames()),
            Self::RealTime(ticks) => {
                ticks.tick().await;
                let frames = duration_to_frames(CHUNK_DURATION, audio.sample_rate_hz()).max(1);
                audio.split_to(usize::try_from(frames).unwrap_or(usize::MAX))
            }
        }
    }
}
