//! Where a plugin's session puts what it produces: on the bus, and to the agent.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

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

use super::{Incoming, Pending, Received, pending::Synthesis};

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
    /// The session's close is finished. A plugin that goes on all the same is not heard.
    over: Arc<AtomicBool>,
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
    let sink = Sink {
        session,
        plugin,
        events,
        to_agent,
        audio,
        pending: Arc::downgrade(pending),
        over: pending.over(),
        runtime,
    };
    let received = Received { events: events_received, audio: audio_received };
    (SinkBox::from_value(sink, TD_Opaque), received)
}

impl Sink {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Puts audio on the bus where somebody names the type.
    fn publish(&self, synthesis: Option<Synthesis>, audio: &AudioChunk) {
        if !self.session.is_wanted(TtsAudioEvent::event_type()) {
            return;
        }
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
        if self.is_over() {
            return Status::CLOSED;
        }
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
        if self.is_over() {
            return Status::CLOSED;
        }
        let audio = match AudioChunk::try_from(audio) {
            Ok(audio) => audio,
            Err(error) => {
                tracing::error!(plugin = %self.plugin.plugin_name, "audio was refused: {error}");
                return Status::REFUSED;
            }
        };
        let permit = match self.audio.try_reserve() {
            Ok(permit) => permit,
            Err(mpsc::error::TrySendError::Full(())) => return Status::FULL,
            Err(mpsc::error::TrySendError::Closed(())) => return Status::CLOSED,
        };
        // Whoever got the end of a command counts on having all of its audio. After the room: only what is taken counts.
        let piece = self.pending.upgrade().map(|pending| pending.next_piece(token));
        let Some(Ok(synthesis)) = piece else { return Status::CLOSED };
        self.publish(synthesis, &audio);
        permit.send(Incoming { token, audio });
        Status::ACCEPTED
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

#[cfg(test)]
mod tests {
    use antiphon_core::{Event, EventBus, event::llm::LlmResponseDeltaEvent};
    use antiphon_plugin_api::abi::abi_stable::std_types::RSlice;

    use super::{super::Sessions, *};

    /// A session of a plugin that emits pieces of replies, which the agent needs.
    struct Open {
        session: SessionBus,
        sink: SinkBox,
        pending: Arc<Pending>,
        received: Received,
    }

    impl Open {
        fn new() -> Self {
            let bus = EventBus::new();
            let delta = bus.registry().find("llm.response.delta").expect("it is in the catalogue");
            let session = bus.open_session();
            let pending = Pending::of(&Arc::<Sessions>::default());
            let plugin = PluginBaseEvent {
                plugin_name: "late".into(),
                plugin_version: "1.0.0".into(),
                plugin_instance: None,
            };
            let events = [PluginEvent::from(delta)].into();
            let runtime = Handle::current();
            let (sink, received) = sink(session.clone(), Arc::new(plugin), events, runtime, &pending);
            Self { session, sink, pending, received }
        }

        fn emit(&self) -> Status {
            let event = LlmResponseDeltaEvent { delta: "And another thing.".into(), ..Default::default() };
            let payload = rmp_serde::to_vec_named(&event).expect("plain data");
            let header = EventHeaderV1 {
                type_index: 0,
                reserved: 0,
                emitted_unix_ns: 0,
                turn_id: 0,
                causation_id: [0; 16],
            };
            self.sink.emit(&header, RSlice::from_slice(&payload))
        }

        fn audio(&self, token: u64) -> Status {
            self.sink.audio(token, AudioChunk::mono(vec![1_i16; 16]).into())
        }

        fn waiting(&mut self) -> (usize, usize) {
            (self.received.events.len(), self.received.audio.len())
        }
    }

    #[tokio::test]
    async fn audio_belongs_to_a_command_that_is_pending() {
        let mut open = Open::new();
        assert_eq!(open.audio(1), Status::CLOSED, "nobody asked yet");
        let (token, completion) = open.pending.begin();
        assert_eq!((open.audio(token), open.audio(token + 1)), (Status::ACCEPTED, Status::CLOSED));
        open.sink.finished(token, Outcome::COMPLETED);
        assert_eq!(completion.finished().await, Outcome::COMPLETED);
        assert_eq!(open.audio(token), Status::CLOSED);
        assert_eq!(open.waiting(), (0, 1));
    }

    #[tokio::test]
    async fn nothing_of_a_session_comes_after_its_close_is_finished() {
        let mut open = Open::new();
        let seen = Arc::new(AtomicBool::new(false));
        let sees = Arc::clone(&seen);
        let _subscription = open.session.subscribe(move |_: Event<LlmResponseDeltaEvent>| {
            sees.store(true, Ordering::SeqCst);
            async {}
        });
        let (token, completion) = open.pending.begin_close();
        open.sink.finished(token + 1, Outcome::COMPLETED);
        assert!(!open.pending.over().load(Ordering::SeqCst), "nobody gave that command");
        open.sink.finished(token, Outcome::COMPLETED);
        assert_eq!(completion.finished().await, Outcome::COMPLETED);
        assert_eq!((open.emit(), open.audio(token)), (Status::CLOSED, Status::CLOSED));
        open.session.close().await;
        assert!(!seen.load(Ordering::SeqCst));
        assert_eq!(open.waiting(), (0, 0));
    }

    #[tokio::test]
    async fn what_is_said_while_a_session_closes_is_heard() {
        let mut open = Open::new();
        let (_token, _completion) = open.pending.begin_close();
        assert_eq!(open.emit(), Status::ACCEPTED);
        assert_eq!(open.waiting(), (1, 0));
    }
}
