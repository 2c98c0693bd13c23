//! Turn detection: when the user speaks, and when the user is done.

use std::{future::Future, sync::Arc, time::Duration};

use abi_stable::{erased_types::TD_Opaque, std_types::RStr};
use antiphon_core::{
    AudioChunk,
    event::{
        EventPayload,
        turn::{TurnEndedEvent, TurnStartedEvent, VadSpeechEndEvent, VadSpeechStartEvent},
    },
};

use crate::{
    EventDeclarations, Plugin, PluginError, SessionContext,
    abi::{
        AudioV1, CapabilityObject, SinkBox, Status, TurnBox, TurnSessionBox, TurnSessionV1, TurnV1, WakerBox,
    },
    export::{Capability, Instance, context_of},
    runtime::{Commands, Serial, spawn_serial},
};

/// A plugin that detects turns.
pub trait TurnDetector: Plugin {
    /// The detector of one session.
    type Session: TurnSession;

    /// Opens a session.
    ///
    /// # Errors
    ///
    /// The session cannot be opened; the host is told.
    fn open(&self, output: TurnOutput) -> impl Future<Output = Result<Self::Session, PluginError>> + Send;
}

/// Turn detection in one session. Calls come one after the other. A call that runs when the session is closed is dropped,
/// then the session itself.
pub trait TurnSession: Send + 'static {
    /// Takes the next audio of the user: one channel, 16 kHz, without gaps. When it returns, everything that this audio
    /// gives rise to has been emitted.
    ///
    /// # Errors
    ///
    /// The audio could not be examined; the host is told, and goes on.
    fn audio(&mut self, audio: AudioChunk) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// No more audio will come: end a turn that is still open.
    ///
    /// # Errors
    ///
    /// As for [`audio`](Self::audio).
    fn flush(&mut self) -> impl Future<Output = Result<(), PluginError>> + Send {
        async { Ok(()) }
    }
}

/// Where a turn detector says what it heard. Clones speak for the same session.
#[derive(Debug, Clone)]
pub struct TurnOutput {
    context: SessionContext,
}

impl TurnOutput {
    /// A stretch of speech began.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn speech_started(&self, probability: f64) -> Result<(), PluginError> {
        self.context.emit(VadSpeechStartEvent { probability }).await
    }

    /// A stretch of speech ended.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn speech_ended(&self, duration: Duration) -> Result<(), PluginError> {
        self.context.emit(VadSpeechEndEvent { duration_ms: millis(duration) }).await
    }

    /// The user has begun to speak.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn turn_started(&self, confidence: f64) -> Result<(), PluginError> {
        self.context.emit(TurnStartedEvent { confidence }).await
    }

    /// The user is done.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn turn_ended(
        &self,
        confidence: f64,
        duration: Duration,
        trailing_silence: Duration,
    ) -> Result<(), PluginError> {
        let event = TurnEndedEvent {
            confidence,
            eager: false,
            duration_ms: Some(millis(duration)),
            trailing_silence_ms: Some(millis(trailing_silence)),
        };
        self.context.emit(event).await
    }

    /// Emits an event of the plugin's own.
    ///
    /// # Errors
    ///
    /// As [`SessionContext::emit`].
    pub async fn emit<T: EventPayload>(&self, event: T) -> Result<(), PluginError> {
        self.context.emit(event).await
    }

    /// The session.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.context
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

enum Command {
    Audio(u64, AudioV1),
    Flush(u64),
}

struct Session<S>(S);

impl<S: TurnSession> Serial for Session<S> {
    type Command = Command;

    fn token(command: &Command) -> u64 {
        match command {
            Command::Audio(token, _) | Command::Flush(token) => *token,
        }
    }

    async fn handle(&mut self, command: Command) -> Result<(), PluginError> {
        match command {
            Command::Audio(_, audio) => self.0.audio(AudioChunk::try_from(audio)?).await,
            Command::Flush(_) => self.0.flush().await,
        }
    }

    async fn report(_: Option<&mut Self>, _: &SessionContext, error: &PluginError) {
        tracing::error!("turn detection failed: {error:?}");
    }

    async fn closed(_: &SessionContext) {}
}

struct Object<P: TurnDetector>(Instance<P>);

impl<P: TurnDetector> TurnV1 for Object<P> {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> TurnSessionBox {
        let context = context_of(&self.0, session_id, sink);
        let plugin = Arc::clone(&self.0.plugin);
        let output = TurnOutput { context: context.clone() };
        let open = async move { plugin.open(output).await.map(Session) };
        let commands = spawn_serial(self.0.runtime, context, open);
        TurnSessionBox::from_value(Remote(commands), TD_Opaque)
    }
}

struct Remote(Commands<Command>);

impl TurnSessionV1 for Remote {
    fn push_audio(&self, token: u64, audio: AudioV1) -> Status {
        self.0.push(Command::Audio(token, audio))
    }

    fn flush(&self, token: u64) -> Status {
        self.0.push(Command::Flush(token))
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
pub const fn capability<P: TurnDetector>() -> Capability<P> {
    Capability {
        kind: "turn",
        declare: |events: &mut EventDeclarations| {
            events
                .declare::<VadSpeechStartEvent>()
                .declare::<VadSpeechEndEvent>()
                .declare::<TurnStartedEvent>()
                .declare::<TurnEndedEvent>();
        },
        object: |instance| CapabilityObject::new(TurnBox::from_value(Object(instance.clone()), TD_Opaque)),
    }
}
