//! The events that are sent around, and the same event for rivals that know nothing of Antiphon.

use std::sync::Arc;

use antiphon_core::{
    AudioChunk, BaseEvent, Clock, Event, SessionId,
    clock::Now,
    event::{audio::AudioReceivedEvent, values::PcmData},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text, as a transcript carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "bench.small", base = BaseEvent)]
pub(crate) struct SmallEvent {
    pub(crate) text: String,
}

impl SmallEvent {
    pub(crate) fn hello() -> Self {
        Self { text: "hello".to_owned() }
    }
}

/// One that nobody subscribes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "bench.unwanted", base = BaseEvent)]
pub(crate) struct UnwantedEvent {
    pub(crate) level: u64,
}

/// Carries the time just before it was emitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "bench.timed", base = BaseEvent)]
pub(crate) struct TimedEvent {
    pub(crate) text: String,
    pub(crate) sent_ns: u64,
}

/// 20 ms of 16 kHz mono: 640 bytes, in memory of their own.
pub(crate) fn audio() -> AudioReceivedEvent {
    let chunk = AudioChunk::mono(vec![0_i16; 320]);
    AudioReceivedEvent { pcm_data: Some(PcmData(chunk)), size_bytes: None, format: None }
}

/// What a rival delivers: the fields that Antiphon stamps, around the same payload.
#[derive(Debug)]
#[expect(dead_code, reason = "carried, not read")]
pub(crate) struct Stamped<P> {
    pub(crate) event_id: Uuid,
    /// Calendar and monotonic time.
    pub(crate) now: Now,
    pub(crate) session_id: SessionId,
    pub(crate) seq: u64,
    pub(crate) payload: P,
}

/// Stamps a rival's events with the very code that stamps ours.
pub(crate) struct Stamper {
    clock: Arc<dyn Clock>,
    session_id: SessionId,
    seq: u64,
}

impl Stamper {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let session_id = SessionId(clock.uuid(clock.now()));
        Self { clock, session_id, seq: 0 }
    }

    pub(crate) fn build<P>(&mut self, payload: P) -> Arc<Stamped<P>> {
        let now = self.clock.now();
        self.seq += 1;
        let event_id = self.clock.uuid(now);
        Arc::new(Stamped { event_id, now, session_id: self.session_id, seq: self.seq, payload })
    }
}
