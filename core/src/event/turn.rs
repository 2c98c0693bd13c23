//! Voice activity and turn taking, from plugins of kind `turn`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventInfo, EventPayload, PluginBaseEvent};

pub(super) const EVENTS: &[&EventInfo] =
    &[VadSpeechStartEvent::INFO, VadSpeechEndEvent::INFO, TurnStartedEvent::INFO, TurnEndedEvent::INFO];

/// A stretch of speech began; a turn may hold several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "vad.speech_start", base = PluginBaseEvent)]
pub struct VadSpeechStartEvent {
    /// Probability of speech, in 0..=1.
    pub probability: f64,
}

/// A stretch of speech ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "vad.speech_end", base = PluginBaseEvent)]
pub struct VadSpeechEndEvent {
    /// Milliseconds of speech.
    pub duration_ms: f64,
}

/// A turn detector decided that the user has begun to speak.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "turn.started", base = PluginBaseEvent)]
pub struct TurnStartedEvent {
    /// How sure, in 0..=1.
    pub confidence: f64,
}

/// A turn detector decided that the user has finished.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "turn.ended", base = PluginBaseEvent)]
pub struct TurnEndedEvent {
    /// How sure, in 0..=1.
    pub confidence: f64,
    /// Whether it is a guess that may be revoked.
    pub eager: bool,
    /// Milliseconds of silence before the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailing_silence_ms: Option<f64>,
    /// Milliseconds of speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
}
