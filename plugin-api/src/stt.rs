//! Speech to text.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use abi_stable::{erased_types::TD_Opaque, std_types::RStr};
use antiphon_core::{
    AudioChunk,
    event::{
        EventPayload,
        stt::{
            SttConnectedEvent, SttDisconnectedEvent, SttErrorEvent, SttFinalTranscriptEvent,
            SttInterimTranscriptEvent, SttListeningStartedEvent, SttUtteranceFinalEvent,
        },
        values::{TranscriptMode, WordTiming},
    },
};

use crate::{
    EventDeclarations, Plugin, PluginError, SessionContext,
    abi::{AudioV1, CapabilityObject, SinkBox, Status, SttBox, SttSessionBox, SttSessionV1, SttV1, WakerBox},
    export::{Capability, Instance, context_of},
    runtime::{Commands, Serial, spawn_serial},
};

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

enum Command {
    Begin(u64),
    Audio(AudioV1),
    End(u64),
    Cancel(u64),
}

struct Session<S> {
    session: S,
    turn_id: Arc<AtomicU64>,
}

impl<S: SttSession> Serial for Session<S> {
    type Command = Command;

    fn token(command: &Command) -> u64 {
        match command {
            Command::Begin(_) | Command::Audio(_) => 0,
            Command::End(token) | Command::Cancel(token) => *token,
        }
    }

    async fn handle(&mut self, command: Command) -> Result<(), PluginError> {
        match command {
            Command::Begin(turn_id) => {
                self.turn_id.store(turn_id, Ordering::Relaxed);
                self.session.begin().await
            }
            Command::Audio(audio) => self.session.audio(AudioChunk::try_from(audio)?).await,
            Command::End(_) => self.session.end().await,
            Command::Cancel(_) => self.session.cancel().await,
        }
    }

    async fn report(session: Option<&mut Self>, context: &SessionContext, error: &PluginError) {
        let turn_id = session.map_or(0, |session| session.turn_id.load(Ordering::Relaxed));
        let event = SttErrorEvent {
            error: Some(error.info()),
            error_code: Some(error.code().into()),
            context: None,
            is_recoverable: error.is_recoverable(),
            error_message: error.to_string(),
            retry_count: None,
        };
        context.emit_last(turn_id, event).await;
    }

    async fn closed(context: &SessionContext) {
        let event = SttDisconnectedEvent { reason: None, clean: true, will_reconnect: false };
        context.emit_last(0, event).await;
    }
}

struct Object<P: Stt>(Instance<P>);

impl<P: Stt> SttV1 for Object<P> {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> SttSessionBox {
        let context = context_of(&self.0, session_id, sink);
        let plugin = Arc::clone(&self.0.plugin);
        let turn_id = Arc::new(AtomicU64::new(0));
        let output = SttOutput { context: context.clone(), turn_id: Arc::clone(&turn_id) };
        let open = async move {
            let session = plugin.open(output.clone()).await?;
            output.emit(SttConnectedEvent {}).await?;
            Ok(Session { session, turn_id })
        };
        let commands = spawn_serial(self.0.runtime, context, open);
        SttSessionBox::from_value(Remote(commands), TD_Opaque)
    }
}

struct Remote(Commands<Command>);

impl SttSessionV1 for Remote {
    fn begin(&self, turn_id: u64) -> Status {
        self.0.push(Command::Begin(turn_id))
    }

    fn push_audio(&self, audio: AudioV1) -> Status {
        self.0.push(Command::Audio(audio))
    }

    fn end(&self, token: u64) -> Status {
        self.0.push(Command::End(token))
    }

    fn cancel(&self, token: u64) -> Status {
        self.0.push(Command::Cancel(token))
    }

    fn close(&self, token: u64) {
        self.0.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.0.wake_when_ready(waker);
    }
}

/// Used by `export_plugin!`.
#[doc(hidden)]
#[must_use]
pub const fn capability<P: Stt>() -> Capability<P> {
    Capability {
        kind: "stt",
        declare: |events: &mut EventDeclarations| {
            events
                .declare::<SttConnectedEvent>()
                .declare::<SttDisconnectedEvent>()
                .declare::<SttErrorEvent>()
                .declare::<SttListeningStartedEvent>()
                .declare::<SttInterimTranscriptEvent>()
                .declare::<SttFinalTranscriptEvent>()
                .declare::<SttUtteranceFinalEvent>();
        },
        object: |instance| CapabilityObject::new(SttBox::from_value(Object(instance.clone()), TD_Opaque)),
    }
}
