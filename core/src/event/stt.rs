//! Speech to text, from plugins of kind `stt`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    Event, EventInfo, EventPayload, PluginBaseEvent,
    values::{ErrorInfo, TranscriptMode, WordTiming},
};

pub(super) const EVENTS: &[&EventInfo] = &[
    SttConnectedEvent::INFO,
    SttDisconnectedEvent::INFO,
    SttErrorEvent::INFO,
    SttListeningStartedEvent::INFO,
    SttInterimTranscriptEvent::INFO,
    SttFinalTranscriptEvent::INFO,
    SttUtteranceFinalEvent::INFO,
];

/// The recogniser of this session is up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "stt.connected", base = PluginBaseEvent)]
pub struct SttConnectedEvent {}

/// The recogniser of this session is gone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "stt.disconnected", base = PluginBaseEvent)]
pub struct SttDisconnectedEvent {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it ended on purpose.
    pub clean: bool,
    /// Whether another attempt follows.
    pub will_reconnect: bool,
}

/// The recogniser failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "stt.error", base = PluginBaseEvent)]
pub struct SttErrorEvent {
    /// What failed, structured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// Machine-readable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Which operation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Whether trying again may succeed.
    pub is_recoverable: bool,
    /// What failed, for people.
    pub error_message: String,
    /// Attempts so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<u32>,
}

/// Recogniser ready and listening.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "stt.listening", base = PluginBaseEvent)]
pub struct SttListeningStartedEvent {}

/// What was understood so far; changes with every chunk of audio. High volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "stt.transcript.interim", base = PluginBaseEvent)]
pub struct SttInterimTranscriptEvent {
    /// The text.
    pub text: String,
    /// How sure, in 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// BCP-47 tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Each word with its time since the start of the audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<WordTiming>>,
    /// Milliseconds from the last audio to this result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processing_time_ms: Option<f64>,
    /// Milliseconds of audio behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_duration_ms: Option<f64>,
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// Whether the text adds to, replaces or ends what came before.
    pub mode: TranscriptMode,
}

/// A committed segment of the utterance; does not start a reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "stt.transcript.final", base = PluginBaseEvent)]
pub struct SttFinalTranscriptEvent {
    /// The text.
    pub text: String,
    /// How sure, in 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// BCP-47 tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Each word with its time since the start of the audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<WordTiming>>,
    /// Milliseconds from the last audio to this result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processing_time_ms: Option<f64>,
    /// Milliseconds of audio behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_duration_ms: Option<f64>,
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// Whether a whole clip was transcribed at once.
    pub is_batch: bool,
}

/// The complete utterance, which starts a reply. Comes after its last `stt.transcript.final`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "stt.transcript.utterance_final", base = PluginBaseEvent)]
pub struct SttUtteranceFinalEvent {
    /// The text.
    pub text: String,
    /// How sure, in 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// BCP-47 tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Each word with its time since the start of the audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<WordTiming>>,
    /// Milliseconds from the last audio to this result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processing_time_ms: Option<f64>,
    /// Milliseconds of audio behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_duration_ms: Option<f64>,
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
}
