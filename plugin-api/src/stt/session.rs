//! The objects by which a host reaches a recogniser.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use abi_stable::{erased_types::TD_Opaque, std_types::RStr};
use antiphon_core::{
    AudioChunk,
    event::stt::{
        SttConnectedEvent, SttDisconnectedEvent, SttErrorEvent, SttFinalTranscriptEvent,
        SttInterimTranscriptEvent, SttListeningStartedEvent, SttUtteranceFinalEvent,
    },
};

use super::{Stt, SttOutput, SttSession};
use crate::{
    EventDeclarations, PluginError, SessionContext,
    abi::{AudioV1, CapabilityObject, SinkBox, Status, SttBox, SttSessionBox, SttSessionV1, SttV1, WakerBox},
    export::{Capability, Instance, context_of},
    runtime::{Commands, Serial, spawn_serial},
};

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
