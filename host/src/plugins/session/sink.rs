//! Where a plugin's session puts what it produces: on the bus, and to the agent.

use std::sync::{Arc, Weak};

use antiphon_core::{
    AudioChunk, PluginBaseEvent, SessionBus, TurnId,
    bus::{PluginEmission, TryEmitError},
    event::{
        Envelope, EventPayload, EventType, Stamp,
        tts::TtsAudioEvent,
        values::{AudioFormat, PcmData},
    },
};
use antiphon_plugin_api::abi::{
    AudioV1, EventHeaderV1, OUTPUT_AUDIO, Outcome, SinkBox, SinkV1, Status, WakerBox,
    abi_stable::{erased_types::TD_Opaque, std_types::RSlice},
};
use tokio::{runtime::Handle, sync::mpsc};
use uuid::Uuid;

use super::{Incoming, Pending, Received};

/// Events that the agent itself lives on: plugins send them whether or not anybody subscribes.
const NEEDED_BY_AGENT: [&str; 8] = [
    "turn.started",
    "turn.ended",
    "stt.transcript.utterance_final",
    "stt.error",
    "llm.response.delta",
    "llm.error",
    "tts.words",
    "tts.error",
];

/// An event type that a plugin declares.
#[derive(Debug, Clone)]
pub(in crate::plugins) struct PluginEvent {
    pub(in crate::plugins) event: Arc<EventType>,
    /// It is one of [`NEEDED_BY_AGENT`].
    pub(in crate::plugins) is_needed: bool,
}

impl From<Arc<EventType>> for PluginEvent {
    fn from(event: Arc<EventType>) -> Self {
        let is_needed = NEEDED_BY_AGENT.contains(&event.name());
        Self { event, is_needed }
    }
}

/// Events that may wait for the agent.
const EVENT_CAPACITY: usize = 1024;

/// Pieces of audio that may wait for the agent.
const AUDIO_CAPACITY: usize = 64;

/// Where a plugin's session puts what it produces.
struct Sink {
    session: SessionBus,
    plugin: Arc<PluginBaseEvent>,
    events: Arc<[PluginEvent]>,
    to_agent: mpsc::Sender<Arc<Envelope>>,
    audio: mpsc::Sender<Incoming>,
    pending: Weak<Pending>,
    runtime: Handle,
}

pub(in crate::plugins) fn sink(
    session: SessionBus,
    plugin: Arc<PluginBaseEvent>,
    events: Arc<[PluginEvent]>,
    runtime: Handle,
    pending: &Arc<Pending>,
) -> (SinkBox, Received) {
    let (to_agent, events_received) = mpsc::channel(EVENT_CAPACITY);
    let (audio, audio_received) = mpsc::channel(AUDIO_CAPACITY);
    let sink = Sink { session, plugin, events, to_agent, audio, pending: Arc::downgrade(pending), runtime };
    let received = Received { events: events_received, audio: audio_received };
    (SinkBox::from_value(sink, TD_Opaque), received)
}

impl Sink {
    /// Puts audio on the bus where somebody names the type.
    fn publish(&self, token: u64, audio: &AudioChunk) {
        if !self.session.is_wanted(TtsAudioEvent::event_type()) {
            return;
        }
        let synthesis = self.pending.upgrade().and_then(|pending| pending.next_piece(token));
        let event = TtsAudioEvent {
            synthesis_id: synthesis.map(|synthesis| synthesis.id),
            chunk_index: synthesis.map_or(0, |synthesis| synthesis.pieces - 1),
            audio: Some(PcmData(audio.clone())),
            format: AudioFormat::S16,
            text: None,
            final_chunk: false,
            sequence: None,
            words: None,
            whole_utterance: false,
        };
        let turn_id = synthesis.and_then(|synthesis| synthesis.turn_id);
        let stamp = Stamp { turn_id, plugin: Some(Arc::clone(&self.plugin)), ..Stamp::default() };
        let _ = self.session.emit_with(event, stamp);
    }
}

impl SinkV1 for Sink {
    fn emit(&self, header: &EventHeaderV1, payload: RSlice<'_, u8>) -> Status {
        let Some(event) = self.events.get(header.type_index as usize) else {
            tracing::error!(plugin = %self.plugin.plugin_name, index = header.type_index, "an event that is not in the manifest");
            return Status::REFUSED;
        };
        let PluginEvent { event, is_needed } = event;
        let permit = match is_needed.then(|| self.to_agent.try_reserve()) {
            Some(Ok(permit)) => Some(permit),
            Some(Err(mpsc::error::TrySendError::Full(()))) => return Status::FULL,
            // The agent has gone; the bus still wants what its subscribers want.
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => None,
        };
        let emission = PluginEmission {
            event,
            payload: payload.as_slice(),
            plugin: &self.plugin,
            turn_id: (header.turn_id != 0).then_some(TurnId(header.turn_id)),
            causation_id: (header.causation_id != [0; 16]).then(|| Uuid::from_bytes(header.causation_id)),
            emitted_at: chrono_from(header.emitted_unix_ns),
            always: permit.is_some(),
        };
        match self.session.try_emit_plugin(&emission) {
            Ok(envelope) => {
                if let (Some(permit), Some(envelope)) = (permit, envelope) {
                    permit.send(envelope);
                }
                Status::ACCEPTED
            }
            Err(TryEmitError::Full) => Status::FULL,
            Err(error) => {
                tracing::error!(plugin = %self.plugin.plugin_name, "an event was refused: {error}");
                Status::REFUSED
            }
        }
    }

    fn audio(&self, token: u64, audio: AudioV1) -> Status {
        let audio = match AudioChunk::try_from(audio) {
            Ok(audio) => audio,
            Err(error) => {
                tracing::error!(plugin = %self.plugin.plugin_name, "audio was refused: {error}");
                return Status::REFUSED;
            }
        };
        match self.audio.try_reserve() {
            Ok(permit) => {
                self.publish(token, &audio);
                permit.send(Incoming { token, audio });
                Status::ACCEPTED
            }
            Err(mpsc::error::TrySendError::Full(())) => Status::FULL,
            Err(mpsc::error::TrySendError::Closed(())) => Status::CLOSED,
        }
    }

    fn finished(&self, token: u64, outcome: Outcome) {
        if let Some(pending) = self.pending.upgrade() {
            pending.finish(token, outcome);
        }
    }

    fn wake_when_ready(&self, output: u32, waker: WakerBox) {
        let (session, to_agent, audio) = (self.session.clone(), self.to_agent.clone(), self.audio.clone());
        let event = self.events.get(output as usize).cloned();
        // Ends with the wait; a closed channel or session ends the wait too.
        self.runtime.spawn(async move {
            if output == OUTPUT_AUDIO {
                drop(audio.reserve().await);
            } else if let Some(PluginEvent { event, is_needed }) = event {
                if is_needed {
                    drop(to_agent.reserve().await);
                }
                session.wait_for_room(&event).await;
            }
            waker.wake();
        });
    }
}

fn chrono_from(unix_ns: u64) -> Option<chrono::DateTime<chrono::Utc>> {
    let nanos = i64::try_from(unix_ns).ok().filter(|nanos| *nanos > 0)?;
    Some(chrono::DateTime::from_timestamp_nanos(nanos))
}
