//! Text to speech, from plugins of kind `tts`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    SpeechId,
    event::{
        Event, EventInfo, EventPayload, PluginBaseEvent,
        values::{AudioEncoding, AudioFormat, ErrorInfo, PcmData, WordTiming},
    },
};

pub(super) const EVENTS: &[&EventInfo] = &[
    TtsConnectedEvent::INFO,
    TtsDisconnectedEvent::INFO,
    TtsErrorEvent::INFO,
    TtsChunkQueuedEvent::INFO,
    TtsSynthesisStartEvent::INFO,
    TtsAudioEvent::INFO,
    TtsMetadataEvent::INFO,
    TtsWordsEvent::INFO,
    TtsSynthesisCompleteEvent::INFO,
];

/// The synthesiser of this session is up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.connected", base = PluginBaseEvent)]
pub struct TtsConnectedEvent {}

/// The synthesiser of this session is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.disconnected", base = PluginBaseEvent)]
pub struct TtsDisconnectedEvent {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it ended on purpose.
    pub clean: bool,
}

/// The synthesiser failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.error", base = PluginBaseEvent)]
pub struct TtsErrorEvent {
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
}

/// A chunk of the reply waits for synthesis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.chunk_queued", base = PluginBaseEvent)]
pub struct TtsChunkQueuedEvent {
    /// Number of the chunk in its speech, from 0.
    pub chunk_id: u64,
    /// The text.
    pub text: String,
    /// The speech it belongs to.
    pub speech_id: SpeechId,
}

/// The synthesis of a chunk began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.synthesis.start", base = PluginBaseEvent)]
pub struct TtsSynthesisStartEvent {
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The synthesis it belongs to.
    pub synthesis_id: Uuid,
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The voice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice_id: Option<String>,
    /// Estimated milliseconds of audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_duration_ms: Option<f64>,
    /// The speech it belongs to.
    pub speech_id: SpeechId,
}

/// Synthesised audio. Media: only subscribers that name the type receive it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.audio", base = PluginBaseEvent, media)]
pub struct TtsAudioEvent {
    /// The synthesis it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthesis_id: Option<Uuid>,
    /// Number of the piece in its synthesis, from 0.
    pub chunk_index: u64,
    /// The samples; none on the final marker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<PcmData>,
    /// Format of the audio.
    pub format: AudioFormat,
    /// The text it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether it is the last of its synthesis.
    pub final_chunk: bool,
    /// The provider's own number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Each word with its time since the start of the audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<WordTiming>>,
    /// Whether it is a whole synthesis in one piece.
    pub whole_utterance: bool,
}

/// The format of the audio that follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.metadata", base = PluginBaseEvent)]
pub struct TtsMetadataEvent {
    /// Sample rate in hertz.
    pub sample_rate: u32,
    /// Encoding of the samples.
    pub encoding: AudioEncoding,
    /// Samples per audio frame.
    pub channels: u16,
    /// Bits per sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_depth: Option<u16>,
    /// MIME type, for encoded audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}

/// The synthesis of a chunk is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.synthesis.complete", base = PluginBaseEvent)]
pub struct TtsSynthesisCompleteEvent {
    /// The synthesis it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthesis_id: Option<Uuid>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Bytes of audio (not samples).
    pub total_audio_bytes: u64,
    /// Milliseconds from the request to the first audio.
    pub synthesis_time_ms: f64,
    /// Milliseconds from the request to the last audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_time_ms: Option<f64>,
    /// Milliseconds of audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_duration_ms: Option<f64>,
    /// Pieces of audio.
    pub chunk_count: u32,
    /// Time to synthesise over time to play.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_time_factor: Option<f64>,
    /// Whether it was interrupted.
    pub cancelled: bool,
}

/// When each word of a synthesis is said. Not in every synthesiser's power.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "tts.words", base = PluginBaseEvent)]
pub struct TtsWordsEvent {
    /// The synthesis it belongs to.
    pub synthesis_id: Uuid,
    /// Each word with its time since the start of the synthesis' audio.
    pub words: Vec<WordTiming>,
}
