//! Speech to text.

mod session;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use antiphon_core::{
    AudioChunk,
    event::{
        EventPayload,
        stt::{
            SttFinalTranscriptEvent, SttInterimTranscriptEvent, SttListeningStartedEvent,
            SttUtteranceFinalEvent,
        },
        values::{TranscriptMode, WordTiming},
    },
};

#[doc(hidden)]
pub use self::session::capability;
use crate::{Plugin, PluginError, SessionContext};

/// A plugin that turns speech into text.
pub trait Stt: Plugin {
    /// The recogniser of one session.
    type Session: SttSession;

    /// Opens a session. `stt.connected` follows when it returns.
    ///
    /// # Errors
    ///
    /// The session cannot be opened; becomes `stt.error`.
    fn open(&self, output: SttOutput) -> impl Future<Output = Result<Self::Session, PluginError>> + Send;
}

/// Speech to text in one session. Calls come one after the other: `begin`, `audio` .., `end` or `cancel`, `begin` ..
/// A call that runs when the session is closed is dropped, then the session itself.
pub trait SttSession: Send + 'static {
    /// An utterance begins.
    ///
    /// # Errors
    ///
    /// Becomes `stt.error`; the utterance has no transcript.
    fn begin(&mut self) -> impl Future<Output = Result<(), PluginError>> + Send {
        async { Ok(()) }
    }

    /// Takes the next audio of the utterance: one channel, 16 kHz, without gaps.
    ///
    /// # Errors
    ///
    /// Becomes `stt.error`.
    fn audio(&mut self, audio: AudioChunk) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// The utterance is over: emit its last [`transcript`](SttOutput::transcript), then its
    /// [`utterance`](SttOutput::utterance), also when nothing was understood (with empty text).
    ///
    /// # Errors
    ///
    /// Becomes `stt.error`.
    fn end(&mut self) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// The utterance is of no interest any more: drop it.
    ///
    /// # Errors
    ///
    /// Becomes `stt.error`.
    fn cancel(&mut self) -> impl Future<Output = Result<(), PluginError>> + Send {
        async { Ok(()) }
    }
}

/// Something that was understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// The text.
    pub text: String,
    /// How sure, in 0..=1.
    pub confidence: Option<f64>,
    /// BCP-47 tag.
    pub language: Option<String>,
    /// Each word with its time since the start of the utterance's audio.
    pub words: Option<Vec<WordTiming>>,
    /// Milliseconds from the last audio to this result.
    pub processing_time_ms: Option<f64>,
    /// Milliseconds of audio behind it.
    pub audio_duration_ms: Option<f64>,
    /// Name of the model.
    pub model_name: Option<String>,
}

/// Where a recogniser says what it understood. Clones speak for the same session.
#[derive(Debug, Clone)]
pub struct SttOutput {
    context: SessionContext,
    turn_id: Arc<AtomicU64>,
}

impl SttOutput {
    /// The recogniser listens.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn listening(&self) -> Result<(), PluginError> {
        self.emit(SttListeningStartedEvent {}).await
    }

    /// What was understood so far; replaces what came before.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn interim(&self, transcript: Transcript) -> Result<(), PluginError> {
        let Transcript {
            text,
            confidence,
            language,
            words,
            processing_time_ms,
            audio_duration_ms,
            model_name,
        } = transcript;
        let mode = TranscriptMode::Replacement;
        self.emit(SttInterimTranscriptEvent {
            text,
            confidence,
            language,
            words,
            processing_time_ms,
            audio_duration_ms,
            model_name,
            mode,
        })
        .await
    }

    /// A committed segment; an utterance may have several.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn transcript(&self, transcript: Transcript) -> Result<(), PluginError> {
        let Transcript {
            text,
            confidence,
            language,
            words,
            processing_time_ms,
            audio_duration_ms,
            model_name,
        } = transcript;
        self.emit(SttFinalTranscriptEvent {
            text,
            confidence,
            language,
            words,
            processing_time_ms,
            audio_duration_ms,
            model_name,
            is_batch: false,
        })
        .await
    }

    /// The complete utterance.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn utterance(&self, transcript: Transcript) -> Result<(), PluginError> {
        let Transcript {
            text,
            confidence,
            language,
            words,
            processing_time_ms,
            audio_duration_ms,
            model_name,
        } = transcript;
        self.emit(SttUtteranceFinalEvent {
            text,
            confidence,
            language,
            words,
            processing_time_ms,
            audio_duration_ms,
            model_name,
        })
        .await
    }

    /// Whether anybody wants interim transcripts.
    #[must_use]
    pub fn wants_interim(&self) -> bool {
        self.context.is_wanted::<SttInterimTranscriptEvent>()
    }

    /// Emits an event of the plugin's own.
    ///
    /// # Errors
    ///
    /// As [`SessionContext::emit`].
    pub async fn emit<T: EventPayload>(&self, event: T) -> Result<(), PluginError> {
        let turn_id = self.turn_id.load(Ordering::Relaxed);
        self.context.emit_through(self.context.gate(), turn_id, event).await
    }

    /// The session.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.context
    }
}
