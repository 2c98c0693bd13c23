//! Text to speech.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
};

use abi_stable::{
    erased_types::TD_Opaque,
    std_types::{RSlice, RStr},
};
use antiphon_core::{
    AudioChunk, SpeechId,
    audio::frames_to_duration,
    event::{
        EventPayload,
        tts::{
            TtsConnectedEvent, TtsDisconnectedEvent, TtsErrorEvent, TtsMetadataEvent,
            TtsSynthesisCompleteEvent, TtsSynthesisStartEvent, TtsWordsEvent,
        },
        values::{AudioEncoding, WordTiming},
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    EventDeclarations, Plugin, PluginError, SessionContext,
    abi::{CapabilityObject, Outcome, SinkBox, Status, TtsBox, TtsSessionBox, TtsSessionV1, TtsV1, WakerBox},
    export::{Capability, Instance, context_of},
    gate::Gate,
    runtime::{Held, Jobs, lock, shielded, until_cancelled},
    wire,
};

/// A plugin that speaks.
pub trait Tts: Plugin {
    /// Speaks a text through `output`, piece by piece as it is made. Requests of one or more sessions run side by side.
    ///
    /// Start and end become `tts.synthesis.start` and `tts.synthesis.complete`.
    ///
    /// # Errors
    ///
    /// Becomes `tts.error`.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the request is cancelled; from then on `output` answers with an error.
    fn synthesize(
        &self,
        request: TtsRequest,
        output: TtsOutput,
    ) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// A session is over: forget what is kept for it.
    fn session_closed(&self, _session_id: &str) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TtsRequest {
    /// The text; a sentence or so.
    pub text: String,
    /// Id of the synthesis.
    pub synthesis_id: Uuid,
    /// The speech that it is a part of.
    pub speech_id: SpeechId,
    /// Position in the speech, from 0.
    pub chunk_id: u64,
}

/// Where speech goes. Clones speak for the same request.
#[derive(Debug, Clone)]
pub struct TtsOutput {
    context: SessionContext,
    gate: Arc<Gate>,
    turn_id: u64,
    token: u64,
    synthesis_id: Uuid,
    asked: Instant,
    state: Arc<Mutex<OutputState>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct OutputState {
    pieces: u32,
    frames: u64,
    bytes: u64,
    sample_rate_hz: u32,
    first_ms: Option<f64>,
    last_ms: Option<f64>,
}

impl TtsOutput {
    /// The next audio: any rate, one or two channels, the same throughout a request. Waits while the host has enough.
    ///
    /// # Errors
    ///
    /// `cancelled` when the request is cancelled or has ended.
    pub async fn audio(&self, audio: AudioChunk) -> Result<(), PluginError> {
        if audio.is_empty() {
            return Ok(());
        }
        if self.state().pieces == 0 {
            self.emit(TtsMetadataEvent {
                sample_rate: audio.sample_rate_hz(),
                encoding: AudioEncoding::Linear16,
                channels: audio.channels(),
                bit_depth: Some(16),
                mime_type: None,
            })
            .await?;
        }
        let now = self.elapsed_ms();
        // What the host did not take does not count.
        let taken = || {
            let mut state = self.state();
            state.pieces += 1;
            state.frames += audio.frames() as u64;
            state.bytes += audio.samples().len() as u64 * 2;
            state.sample_rate_hz = audio.sample_rate_hz();
            state.first_ms.get_or_insert(now);
            state.last_ms = Some(now);
        };
        self.context.audio_noting(&self.gate, self.token, &audio, taken).await
    }

    /// When each word is said, from the start of this request's audio. Give it before the audio of the words: what an
    /// interrupted agent is taken to have said is known to the word then.
    ///
    /// # Errors
    ///
    /// `cancelled` when the request is cancelled or has ended.
    pub async fn words(&self, words: Vec<WordTiming>) -> Result<(), PluginError> {
        self.emit(TtsWordsEvent { synthesis_id: self.synthesis_id, words }).await
    }

    /// Emits an event of the plugin's own.
    ///
    /// # Errors
    ///
    /// As [`SessionContext::emit`]; `cancelled` also when the request is cancelled or has ended.
    pub async fn emit<T: EventPayload>(&self, event: T) -> Result<(), PluginError> {
        self.context.emit_through(&self.gate, self.turn_id, event).await
    }

    /// The session.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    fn state(&self) -> MutexGuard<'_, OutputState> {
        lock(&self.state)
    }

    fn elapsed_ms(&self) -> f64 {
        self.asked.elapsed().as_secs_f64() * 1e3
    }

    fn complete(&self, text: String, cancelled: bool) -> TtsSynthesisCompleteEvent {
        let state = *self.state();
        let audio_ms = frames_to_duration(state.frames, state.sample_rate_hz).as_secs_f64() * 1e3;
        let total_ms = self.elapsed_ms();
        TtsSynthesisCompleteEvent {
            synthesis_id: Some(self.synthesis_id),
            text: Some(text),
            total_audio_bytes: state.bytes,
            synthesis_time_ms: state.first_ms.unwrap_or(total_ms),
            total_time_ms: Some(state.last_ms.unwrap_or(total_ms)),
            audio_duration_ms: Some(audio_ms),
            chunk_count: state.pieces,
            real_time_factor: (audio_ms > 0.0).then(|| total_ms / audio_ms),
            cancelled,
        }
    }
}

struct Object<P: Tts>(Instance<P>);

impl<P: Tts> TtsV1 for Object<P> {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> TtsSessionBox {
        let context = context_of(&self.0, session_id, sink);
        let (plugin, over) = (Arc::clone(&self.0.plugin), context.clone());
        let closed = async move {
            plugin.session_closed(over.session_id()).await;
            over.emit_last(0, TtsDisconnectedEvent { reason: None, clean: true }).await;
        };
        let up = context.clone();
        // Ends with its one event, or with the session.
        self.0.runtime.spawn(async move { up.emit_last(0, TtsConnectedEvent {}).await });
        let jobs = Jobs::new(self.0.runtime, context, closed);
        TtsSessionBox::from_value(Session { plugin: Arc::clone(&self.0.plugin), jobs }, TD_Opaque)
    }
}

struct Session<P: Tts> {
    plugin: Arc<Held<P>>,
    jobs: Jobs,
}

impl<P: Tts> TtsSessionV1 for Session<P> {
    fn synthesize(&self, token: u64, turn_id: u64, request: RSlice<'_, u8>) -> Status {
        shielded(Status::REFUSED, || {
            let Some(request) = wire::decode::<TtsRequest>(request.as_slice()) else {
                return Status::REFUSED;
            };
            let (plugin, context) = (Arc::clone(&self.plugin), self.jobs.context().clone());
            self.jobs.start(token, move |gate| synthesize(plugin, context, gate, token, turn_id, request))
        })
    }

    fn cancel(&self, token: u64) {
        self.jobs.cancel(token);
    }

    fn close(&self, token: u64) {
        self.jobs.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.jobs.wake_when_ready(waker);
    }
}

async fn synthesize<P: Tts>(
    plugin: Arc<Held<P>>,
    context: SessionContext,
    gate: Arc<Gate>,
    token: u64,
    turn_id: u64,
    request: TtsRequest,
) -> Outcome {
    let output = TtsOutput {
        context,
        gate: Arc::clone(&gate),
        turn_id,
        token,
        synthesis_id: request.synthesis_id,
        asked: Instant::now(),
        state: Arc::default(),
    };
    let text = request.text.clone();
    let started = TtsSynthesisStartEvent {
        text: Some(text.clone()),
        synthesis_id: request.synthesis_id,
        model_name: None,
        voice_id: None,
        estimated_duration_ms: None,
        speech_id: request.speech_id,
    };
    let work = async {
        output.emit(started).await?;
        plugin.synthesize(request, output.clone()).await
    };
    match until_cancelled(&gate, work).await {
        Some(Ok(())) => {
            output.context.emit_last(turn_id, output.complete(text, false)).await;
            Outcome::COMPLETED
        }
        None => {
            output.context.emit_last(turn_id, output.complete(text, true)).await;
            Outcome::CANCELLED
        }
        Some(Err(error)) => {
            let event = TtsErrorEvent {
                error: Some(error.info()),
                error_code: Some(error.code().into()),
                context: Some(text),
                is_recoverable: error.is_recoverable(),
                error_message: error.to_string(),
            };
            output.context.emit_last(turn_id, event).await;
            Outcome::FAILED
        }
    }
}

/// Used by `export_plugin!`.
#[doc(hidden)]
#[must_use]
pub const fn capability<P: Tts>() -> Capability<P> {
    Capability {
        kind: "tts",
        declare: |events: &mut EventDeclarations| {
            events
                .declare::<TtsConnectedEvent>()
                .declare::<TtsDisconnectedEvent>()
                .declare::<TtsErrorEvent>()
                .declare::<TtsMetadataEvent>()
                .declare::<TtsSynthesisStartEvent>()
                .declare::<TtsWordsEvent>()
                .declare::<TtsSynthesisCompleteEvent>();
        },
        object: |instance| CapabilityObject::new(TtsBox::from_value(Object(instance.clone()), TD_Opaque)),
    }
}
